//! The files of `templates/`, compiled in. A test holds this list against the folder.

macro_rules! bundle {
    ($($path:literal),+ $(,)?) => {
        &[$(($path, include_bytes!(concat!("../../templates/", $path)))),+]
    };
}

/// Path inside `templates/`, and content.
pub(super) const FILES: &[(&str, &[u8])] = bundle![
    "assets/logo.svg",
    "contract.json",
    "contract.typ",
    "parts/contract.en.typ",
    "parts/contract.pt-BR.typ",
    "parts/format.typ",
    "parts/signature-page.typ",
];
