//! Paths from names that others chose. What a person reads is kept where it does no harm; what could
//! leave its folder is not repaired but refused.

use docg_core::ids::OrganizationId;

use super::{FilesError, Origin};

const MAX_NAME_CHARS: usize = 100;
const MAX_FOLDERS: usize = 16;

/// A file name out of any text: no separators, no control or bidirectional marks, no leading dot, one
/// ending. `2026/0042` becomes `2026-0042.pdf`.
pub(crate) fn clean_filename(text: &str, ending: &str) -> String {
    let suffix = format!(".{ending}");
    let stem = match text.len().checked_sub(suffix.len()) {
        Some(at)
            if text
                .get(at..)
                .is_some_and(|end| end.eq_ignore_ascii_case(&suffix)) =>
        {
            &text[..at]
        }
        _ => text,
    };
    let clean: String = stem
        .chars()
        .map(|c| {
            if c.is_alphanumeric() || " ._-()".contains(c) {
                c
            } else {
                '-'
            }
        })
        .take(MAX_NAME_CHARS)
        .collect();
    let clean = clean.trim_matches(|c| c == '.' || c == ' ' || c == '-');
    let stem = if clean.is_empty() { "document" } else { clean };
    format!("{stem}{suffix}")
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
    let segments: Vec<&str> = trimmed.split('/').collect();
    let fits = |segment: &&str| {
        !segment.is_empty()
            && segment.len() <= 128
            && !segment.starts_with('.')
            && !segment.ends_with(['.', ' '])
            && segment
                .chars()
                .all(|c| c.is_alphanumeric() || " ._-()&,".contains(c))
    };
    if segments.len() > MAX_FOLDERS || !segments.iter().all(fits) {
        return Err(FilesError::BadFolder(folder.chars().take(200).collect()));
    }
    for segment in segments {
        path.push('/');
        path.push_str(segment);
    }
    Ok(path)
}
