"""The documentation site: `make docs` builds it into site/html, which opens from disk and asks no server for anything."""

from pathlib import Path
from secrets import token_hex
from tempfile import gettempdir

import jupyter_client
from jupyter_client.manager import AsyncKernelManager
from traitlets import default

HERE = Path(__file__).parent

project = "proxycoop"
author = "The proxycoop authors"
project_copyright = "The proxycoop authors"

# those in _ext are ours: `make docs` puts them on PYTHONPATH
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "mathml",
    "public_api",
    "registries",
    "rule_pages",
]


def parts_of_pages() -> list[str]:
    """Markdown that commands write for other pages to include: it has no title of its own."""
    parts = []
    for path in sorted(HERE.rglob("*.md")):
        lines = (line for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
        if not next(lines, "").startswith(("#", "---", "(", "```", "<")):
            parts.append(path.relative_to(HERE).as_posix())
    return parts


exclude_patterns = ["_*", "**/.ipynb_checkpoints", *parts_of_pages()]
nitpicky = True
_OTHERS = (
    "abc|agilerl|annotated_types|benchmarl|collections|concurrent|flwr|gymnasium|matplotlib|multiprocessing|numpy|pathlib|pettingzoo|pydantic|pydantic_core|ray|rich|sb3_contrib|"
    "sqlalchemy|stable_baselines3|supersuit|tensordict|torch|torchrl|tqdm|types|typing|typer"
)
nitpick_ignore_regex = [  # what is not ours cannot be looked up without the internet
    (r"py:.*", rf"({_OTHERS})\..*"),
    (r"py:.*", r"(AECEnv|ArrayRecord|Ge|FieldInfo|JsonDict|Message|MetricRecord|NoneType|ParallelEnv|Path|Progress)"),
    (r"py:.*", r"(Queue|Table|Tensor|tqdm)"),
    (r"py:.*", r"(NDArray|bool|bytes_|float\d+|u?int\d+|object_|str_)"),
    (r"py:.*", r".*\[.*"),  # a piece of a type that Sphinx took apart
    (r"py:.*", r"proxycoop\..*\.(_\w+|F|T|Drawing)"),  # private bases, type variables, and pictures before they are written
]

myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_dmath_allow_digits = False
myst_heading_anchors = 4
smartquotes = False  # would turn the dashes of command-line options into others

nb_execution_mode = "cache"  # a notebook is run again when it changed, or with `make clean docs`
nb_execution_cache_path = str(HERE.parent / "site" / "notebooks")
nb_execution_raise_on_error = True
nb_execution_timeout = 300


class Kernel(AsyncKernelManager):
    """Runs a notebook over local sockets: over TCP, the kernel warns of eavesdroppers.

    Their path is absolute: by default it is not, and then this process and the kernel look for them each in its own folder.
    """

    transport = "ipc"

    @default("ip")
    def _sockets(self) -> str:
        return str(Path(gettempdir()) / f"kernel-{token_hex(8)}")


jupyter_client.AsyncKernelManager = Kernel  # what runs notebooks asks here

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_mock_imports = ["flwr", "cryptography", "ray", "benchmarl", "torchrl", "tensordict", "agilerl"]
napoleon_numpy_docstring = False
napoleon_use_rtype = False
add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100

html_theme = "furo"
html_title = "proxycoop"
pygments_dark_style = "monokai"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["rules.js"]
html_show_sourcelink = False
html_copy_source = False
html_show_search_summary = False  # a page opened from disk may not read other pages
html_theme_options = {"navigation_with_keys": True}
