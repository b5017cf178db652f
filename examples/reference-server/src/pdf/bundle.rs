//! The files of `templates/`, compiled into the program. A test compares this list with the folder.

macro_rules! bundle {
    ($($path:literal),+ $(,)?) => {
        &[$(($path, include_bytes!(concat!("../../templates/", $path)))),+]
    };
}

/// Each file's path inside `templates/`, and its content.
pub(super) const FILES: &[(&str, &[u8])] = bundle![
    "assets/logo.svg",
    "contract.json",
    "contract.typ",
    "parts/contract.en.typ",
    "parts/contract.pt-BR.typ",
    "parts/format.typ",
    "parts/signature-page.typ",
];
