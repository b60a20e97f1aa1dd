"""Pages and figures.

* ``report``: a comparison as an HTML page;
* ``figures``: its figures;
* ``sweep_page``: a sweep as an HTML page;
* ``sweep_figures``: its figures;
* ``audit_page``: an audit as an HTML page;
* ``screening_figures``: figures of what screening did;
* ``explain_page``: an explanation as an HTML page;
* ``explain_figures``: its figures;
* ``ledger_page``: a member's statement as an HTML page, CSV and tables;
* ``description``: a cooperative in words;
* ``drawing``: what all figures share;
* ``page``: HTML pages from templates; ``templates/table.html.j2`` is the table of all of them.
"""
