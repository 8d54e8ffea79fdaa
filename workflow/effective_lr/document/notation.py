"""How the paper writes numbers and text, in figures and tables alike, and how pages show its labels."""

import re


def number(value: float) -> str:
    """A setting in LaTeX mathematics, as a power of ten where that is shorter: 0.004, 2.5·10⁻⁴."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    power = f"10^{{{int(exponent)}}}"
    mantissa = mantissa.rstrip("0").rstrip(".")
    return power if mantissa == "1" else rf"{mantissa}\times {power}"


def thousands(count: int) -> str:
    """A count in LaTeX text, with thin spaces between thousands."""
    return f"{count:,}".replace(",", r"\,")


def latex(text: str) -> str:
    """Plain text in LaTeX: special characters escaped, Greek letters in mathematics."""
    for character in "&%$#_{}":
        text = text.replace(character, f"\\{character}")
    text = text.replace("^", r"\^{}")
    for letter, command in {"λ": "lambda", "η": "eta", "γ": "gamma", "β": "beta"}.items():
        text = text.replace(letter, rf"$\{command}$")
    return text.replace("½", r"$\frac12$").replace("‖w‖", r"$\|w\|$")


RAISED, LOWERED = (str.maketrans("0123456789-", digits) for digits in ("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "₀₁₂₃₄₅₆₇₈₉₋"))
PLAIN = {
    **{r"\lambda": "λ", r"\eta": "η", r"\rho": "ρ", r"\sigma": "σ", r"\theta": "θ", r"\ell": "ℓ"},
    **{r"\|": "‖", r"\,": "\u202f", "--": "–", "$": ""},
}


def plain(latex: str) -> str:
    """A label of LaTeX as text with Unicode's letters, for pictures of pages: 2.5·10⁻⁴, ℓ₂."""
    text = re.sub(r"\^\{?(-?\d+)\}?", lambda power: power[1].translate(RAISED), latex)
    text = re.sub(r"_\{?(\d+)\}?", lambda index: index[1].translate(LOWERED), text)
    text = re.sub(r" ?\\times ?", "·", text)
    for command, letter in PLAIN.items():
        text = text.replace(command, letter)
    return re.sub(r"(?<=[= ])-(?=\d)", "−", text)
