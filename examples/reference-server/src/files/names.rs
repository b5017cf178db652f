//! Builds paths from names that come from outside. A file name is cleaned, so that it does no harm. A folder
//! that could lead outside the organization's folder is rejected, not repaired.

use docg_core::{ids::OrganizationId, storable::one_line};

use unicode_normalization::UnicodeNormalization;
use unicode_segmentation::UnicodeSegmentation;

use super::{FilesError, Origin};

/// The longest file name, in bytes. File systems accept 255; writing and signing a file lengthen its name.
const MAX_NAME: usize = 200;
/// The longest title, in characters: titles appear in the subjects of mails.
const MAX_TITLE: usize = 200;
const MAX_FOLDERS: usize = 16;
/// The longest path of a folder and its parents, in bytes. A whole key in a bucket may have 1,024.
const MAX_FOLDER: usize = 512;
/// Names that Windows reserves for devices, with any ending.
const DEVICES: [&str; 6] = ["con", "prn", "aux", "nul", "conin$", "conout$"];

/// Makes a file name from any text: no separators, no control or bidirectional marks, no leading dot, one
/// ending, composed characters, at most 200 bytes. `2026/0042` becomes `2026-0042.pdf`.
pub(crate) fn clean_filename(text: &str, ending: &str) -> String {
    let suffix = format!(".{ending}");
    clean_stem(without(text, &suffix), &suffix)
}

/// Makes a title from a file's original name: in one line and without the ending. `None` if nothing is left.
pub(super) fn title_of(name: &str, ending: &str) -> Option<String> {
    let title = one_line(without(name.trim(), &format!(".{ending}")), MAX_TITLE);
    (!title.is_empty()).then_some(title)
}

/// Removes a suffix from a text, ignoring ASCII case.
fn without<'t>(text: &'t str, suffix: &str) -> &'t str {
    let at = text.len().saturating_sub(suffix.len());
    match text.split_at_checked(at) {
        Some((stem, end)) if end.eq_ignore_ascii_case(suffix) => stem,
        _ => text,
    }
}

/// As [`clean_filename`], for a name that ends in `suffix`. The stem is cut so that the suffix always fits.
pub(super) fn clean_stem(stem: &str, suffix: &str) -> String {
    let clean: String = stem
        .nfc()
        .map(|c| if is_fit_for_names(c) { c } else { '-' })
        .collect();
    let is_edge = |c: char| c == '.' || c == '-' || c.is_whitespace();
    let whole = clean.trim_matches(is_edge);
    let cut = cut_at_character(whole, MAX_NAME - suffix.len());
    let stem = match cut.trim_end_matches(is_edge) {
        "" => "document",
        stem => stem,
    };
    // Windows opens a device if the part of a name before the first dot is a device's name.
    if is_device(stem) {
        return format!("_{stem}{suffix}");
    }
    format!("{stem}{suffix}")
}

/// Cuts a text to at most `most` bytes, between characters as readers see them (grapheme clusters).
fn cut_at_character(text: &str, most: usize) -> &str {
    let ends = text
        .grapheme_indices(true)
        .map(|(at, character)| at + character.len());
    &text[..ends.take_while(|end| *end <= most).last().unwrap_or(0)]
}

/// True if a character is harmless in a file name on any system.
fn is_fit_for_names(c: char) -> bool {
    let is_separator = matches!(
        c,
        '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|' | '%' | '#'
    );
    // Invisible characters, and characters that change the order of others. The joiners U+200C and U+200D are
    // allowed, because some scripts need them.
    let is_unseen = matches!(
        c,
        '\u{AD}' | '\u{61C}' | '\u{200B}' | '\u{200E}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFD}' | '\u{E0000}'..='\u{E0FFF}'
    );
    !(c.is_control() || is_separator || is_unseen)
}

fn is_device(stem: &str) -> bool {
    let name = stem.split('.').next().unwrap_or(stem).trim();
    let name = name.to_lowercase();
    let port = name
        .strip_prefix("com")
        .or_else(|| name.strip_prefix("lpt"));
    let is_port = port.is_some_and(|port| {
        matches!(port, "¹" | "²" | "³") || matches!(port.as_bytes(), [b'0'..=b'9'])
    });
    is_port || DEVICES.contains(&name.as_str())
}

/// The path of a step's document. The last segment is plain ASCII, whatever people call the file.
pub(super) fn document_path(origin: &Origin, filename: &str) -> String {
    let Origin {
        organization_id,
        execution_id,
        node_id,
    } = origin;
    let name: String = filename
        .chars()
        .map(|c| if is_plain(c) { c } else { '-' })
        .collect();
    format!("documents/{organization_id}/{execution_id}/{node_id}/{name}")
}

/// True if a path belongs to a document of this organization, in exactly the form that [`document_path`]
/// writes.
pub(super) fn is_document_of(path: &str, organization: OrganizationId) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    let [room, tenant, execution, node, name] = parts.as_slice() else {
        return false;
    };
    let plain = |part: &str| {
        !part.is_empty()
            && part.len() <= 255
            && !part.starts_with('.')
            && part.chars().all(is_plain)
    };
    *room == "documents"
        && *tenant == organization.to_string()
        && [execution, node, name].into_iter().all(|part| plain(part))
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-()".contains(c)
}

/// The path of a folder inside the organization's folder.
pub(super) fn folder_path(
    organization: OrganizationId,
    folder: &str,
) -> Result<String, FilesError> {
    let mut path = format!("saved/{organization}");
    let trimmed = folder.trim().trim_end_matches('/');
    if trimmed.is_empty() {
        return Ok(path);
    }
    // Compose characters, so that a name leads to one folder, whether its accents are typed composed or not.
    let trimmed: String = trimmed.nfc().collect();
    let segments: Vec<&str> = trimmed.split('/').collect();
    let fits = |segment: &&str| {
        !segment.is_empty()
            && segment.len() <= 128
            && !segment.starts_with(['.', ' '])
            && !segment.ends_with(['.', ' '])
            && !is_device(segment)
            && segment.chars().all(is_fit_for_names)
    };
    if trimmed.len() > MAX_FOLDER || segments.len() > MAX_FOLDERS || !segments.iter().all(fits) {
        return Err(FilesError::BadFolder(folder.chars().take(200).collect()));
    }
    for segment in segments {
        path.push('/');
        path.push_str(segment);
    }
    Ok(path)
}
