//! The files of `templates/`, compiled in. A test compares this list with the folder.

macro_rules! bundle {
    ($($path:literal),+ $(,)?) => {
        &[$(($path, include_bytes!(concat!("../../templates/", $path)))),+]
    };
}

/// The path inside `templates/`, and the content.
pub(super) const FILES: &[(&str, &[u8])] = bundle![
    "assets/logo.svg",
    "contract.json",
    "contract.typ",
    "parts/contract.en.typ",
    "parts/contract.pt-BR.typ",
    "parts/format.typ",
    "parts/signature-page.typ",
];
