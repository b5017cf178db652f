//! Paths from names that others chose. What a person reads is kept where it does no harm; what could
//! leave its folder is not repaired but refused.

use docg_core::{ids::OrganizationId, storable::one_line};

use unicode_normalization::UnicodeNormalization;
use unicode_segmentation::UnicodeSegmentation;

use super::{FilesError, Origin};

/// A file name, in bytes: file systems take 255, and what writes or signs a file adds to its name.
const MAX_NAME: usize = 200;
/// A title, in characters: it stands in the subjects of mails.
const MAX_TITLE: usize = 200;
const MAX_FOLDERS: usize = 16;
/// A folder with those above it, in bytes: a whole key has 1,024 in a bucket.
const MAX_FOLDER: usize = 512;
/// Names that are devices under Windows, whatever their ending.
const DEVICES: [&str; 6] = ["con", "prn", "aux", "nul", "conin$", "conout$"];

/// A file name out of any text: no separators, no control or bidirectional marks, no leading dot, one
/// ending, composed characters, at most 200 bytes. `2026/0042` becomes `2026-0042.pdf`.
pub(crate) fn clean_filename(text: &str, ending: &str) -> String {
    let suffix = format!(".{ending}");
    clean_stem(without(text, &suffix), &suffix)
}

/// A title out of the name that a file was given: as it is, in one line and without the ending.
/// `None` where nothing is left to read.
pub(super) fn title_of(name: &str, ending: &str) -> Option<String> {
    let title = one_line(without(name.trim(), &format!(".{ending}")), MAX_TITLE);
    (!title.is_empty()).then_some(title)
}

/// A text without this end, in capitals or not.
fn without<'t>(text: &'t str, suffix: &str) -> &'t str {
    let at = text.len().saturating_sub(suffix.len());
    match text.split_at_checked(at) {
        Some((stem, end)) if end.eq_ignore_ascii_case(suffix) => stem,
        _ => text,
    }
}

/// As [`clean_filename`], of a name that ends in `suffix` however long it is.
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
    // A device is named by what comes before the first dot.
    if is_device(stem) {
        return format!("_{stem}{suffix}");
    }
    format!("{stem}{suffix}")
}

/// The beginning of a text that has at most `most` bytes and ends with a whole character, as readers see it.
fn cut_at_character(text: &str, most: usize) -> &str {
    let ends = text
        .grapheme_indices(true)
        .map(|(at, character)| at + character.len());
    &text[..ends.take_while(|end| *end <= most).last().unwrap_or(0)]
}

/// Whether a character does no harm in a file name, on any system.
fn is_fit_for_names(c: char) -> bool {
    let is_separator = matches!(
        c,
        '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|' | '%' | '#'
    );
    // Unseen, or they change the order in which others are seen. Scripts need the joiners U+200C and U+200D.
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

/// Where a step's document is kept. The last segment is plain ASCII, whatever people call the file.
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

/// Whether a path is that of a document of this organization, in exactly the form in which
/// [`document_path`] writes them.
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

/// The organization's folder, and in it the one that was asked for.
pub(super) fn folder_path(
    organization: OrganizationId,
    folder: &str,
) -> Result<String, FilesError> {
    let mut path = format!("saved/{organization}");
    let trimmed = folder.trim().trim_end_matches('/');
    if trimmed.is_empty() {
        return Ok(path);
    }
    // One folder, however its name is typed.
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
