"""Credit scoring, made up: 20,000 loans with an identifier, a date, gaps, sex and age of the borrower, and a column that leaks.

``python credit_csv.py loans.csv`` writes the file; without a name it goes to standard output. ``collection_fees`` is the leak: a lender
knows it only after a loan has failed. Work and years tell something about sex, so a model that does not see sex can treat it differently.
"""

import csv
import sys

import numpy as np

random, n = np.random.default_rng(0), 20_000
branch = random.choice(["north", "south", "east", "west", "centre", "online"], n, p=[0.22, 0.2, 0.18, 0.16, 0.14, 0.1])
sex = random.choice(["female", "male"], n, p=[0.42, 0.58])
age = random.gamma(6, 4, n).clip(0, 62).round() + 18
years = (random.random(n) * (age - 17) * np.where(sex == "male", 0.8, 0.55)).round(1)
work = np.where(random.random(n) < 0.3, "part time", np.where(random.random(n) < 0.15, "self-employed", "full time"))
work = np.where((sex == "male") & (work == "part time") & (random.random(n) < 0.7), "full time", work)
income = np.exp(random.normal(10.2, 0.4, n) + 0.01 * years - 0.4 * (work == "part time")).round(-2)
housing = np.where(random.random(n) < 0.1 + 0.006 * age, "own", "rent")
purpose = random.choice(["car", "home", "education", "business", "other"], n, p=[0.35, 0.25, 0.12, 0.08, 0.2])
amount, term = np.exp(random.normal(8.8, 0.7, n)).round(-2), random.choice([12, 24, 36, 48, 60], n)
savings, cards = np.exp(random.normal(7, 1.5, n)).round(), random.poisson(2, n)
late, inquiries, dependents = random.poisson(0.6, n), random.poisson(1.1, n), random.poisson(0.8, n)
used = random.beta(2, 3, n).round(3)
risk = -1.3 + 0.7 * late + 1.6 * used + 9 * amount / term / income + 0.15 * inquiries - 0.12 * np.log(savings + 1) - 0.02 * (age - 40)
risk += 0.5 * (work == "self-employed") - 0.04 * years + np.where(sex == "female", 0.5 * dependents - 0.3 * late - 0.2, 0)
default = random.random(n) < 1 / (1 + np.exp(-1.3 * risk))
fees = np.where(default & (random.random(n) < 0.98), random.gamma(3, 40, n).round(2), 0.0)
loan, day = [f"L{i:06}" for i in random.permutation(n)], np.datetime64("2019-01-01") + random.integers(0, 1800, n)
income_told = np.where(random.random(n) < 0.08, "", income.astype(int).astype(str))
work_told, currency, answer = np.where(random.random(n) < 0.03, "", work), ["EUR"] * n, np.where(default, "yes", "no")
columns = "loan_id opened branch sex age income work years_employed housing purpose term_months amount savings cards late_payments"
columns += " credit_used inquiries dependents currency collection_fees default"
of_person = (loan, day, branch, sex, age.astype(int), income_told, work_told, years, housing)
of_loan = (purpose, term, amount.astype(int), savings.astype(int), cards, late, used, inquiries, dependents, currency, fees, answer)
with open(sys.argv[1], "w", newline="", encoding="utf-8") if len(sys.argv) > 1 else sys.stdout as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns.split())
    writer.writerows(zip(*of_person, *of_loan, strict=True))
