//! Appends a page that states who signed the document and when.
//!
//! The page is appended as an incremental update: the new file begins with the original, byte for byte, with
//! its links, outline and structure. If the new file is cut to the original's length, it is again the file
//! whose hash the page states.

use std::collections::{BTreeMap, VecDeque, btree_map::Entry};

use chrono::{DateTime, SecondsFormat, Utc};
use lopdf::{Dictionary, Document, IncrementalDocument, Object, ObjectId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{
    error::RenderError,
    render::{Pdf, Tagging, typeset},
    templates::{Templates, file_id},
};

/// The content of a signature page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignaturePage {
    /// The title of the document.
    pub title: String,
    /// SHA-256 of the original file, in hexadecimal digits.
    pub document_sha256: String,
    /// The signers, in the order to show them.
    pub signers: Vec<SignedBy>,
    /// The signature provider's id of the request.
    pub envelope_id: String,
    /// The time of the last signature.
    pub completed_at: DateTime<Utc>,
}

/// A person who signed, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedBy {
    /// The signer's name.
    pub name: String,
    /// The signer's address.
    pub email: String,
    /// The time of the signature.
    pub signed_at: DateTime<Utc>,
    /// The signer's IP address, if known.
    pub ip: Option<String>,
}

/// Adds a page to `original` that states who signed it, in `language` (`en` or `pt-BR`). `pages` of the
/// result counts all pages, the original's and the added ones. The server calls this function in a child
/// process, through [`Renderer`](crate::renders::Renderer).
///
/// # Errors
///
/// - [`RenderError::HashMismatch`]: `document_sha256` is not the hash of `original`, so the page would be
///   false.
/// - [`RenderError::UnusableOriginal`]: `original` is not a PDF, or is encrypted.
/// - [`RenderError::InvalidTemplate`]: the language is unknown.
/// - [`RenderError::Export`]: the page cannot be written as PDF.
pub fn append_signature_page(
    original: &[u8],
    page: &SignaturePage,
    language: &str,
) -> Result<Pdf, RenderError> {
    let actual = hex::encode(Sha256::digest(original));
    if !page.document_sha256.eq_ignore_ascii_case(&actual) {
        return Err(RenderError::HashMismatch {
            stated: page.document_sha256.clone(),
            actual,
        });
    }
    let document = Document::load_mem(original).map_err(unusable)?;
    if document.is_encrypted() {
        return Err(RenderError::UnusableOriginal {
            reason: "it is encrypted".to_owned(),
        });
    }
    let signed_pages = document.get_pages().len();
    if signed_pages == 0 {
        return Err(RenderError::UnusableOriginal {
            reason: "it has no pages".to_owned(),
        });
    }
    let record = record(page, &actual, signed_pages, language)?;
    let bytes = append(original, document, &record.bytes).map_err(unusable)?;
    Ok(Pdf {
        bytes,
        pages: signed_pages + record.pages,
    })
}

/// Renders the signature page as a document of its own.
fn record(
    page: &SignaturePage,
    sha256: &str,
    signed_pages: usize,
    language: &str,
) -> Result<Pdf, RenderError> {
    let signers: Vec<_> = page
        .signers
        .iter()
        .map(|signer| {
            json!({
                "name": signer.name,
                "email": signer.email,
                "signed_at": moment(signer.signed_at),
                "ip": signer.ip,
            })
        })
        .collect();
    let data = json!({
        "language": language,
        "title": page.title,
        "document_sha256": sha256,
        "pages": signed_pages,
        "envelope_id": page.envelope_id,
        "completed_at": moment(page.completed_at),
        "signers": signers,
    });
    let main = file_id("parts/signature-page.typ").expect("a bundled path is a path");
    // Untagged: the structure tree of this page would not fit into the original document's tree.
    typeset(
        &Templates::bundled(),
        main,
        &data,
        page.completed_at.date_naive(),
        Tagging::Untagged,
    )
}

/// Appends the pages of `addition` to `original`.
fn append(original: &[u8], document: Document, addition: &[u8]) -> lopdf::Result<Vec<u8>> {
    let mut addition = Document::load_mem(addition)?;
    addition.renumber_objects_with(first_free_id(&document));

    let root_id = document.catalog()?.get(b"Pages")?.as_reference()?;
    let mut tree = document.get_dictionary(root_id)?.clone();
    let mut kids = document
        .dereference(tree.get(b"Kids")?)?
        .1
        .as_array()?
        .clone();
    let mut count = document.dereference(tree.get(b"Count")?)?.1.as_i64()?;

    let mut objects = BTreeMap::new();
    for page_id in addition.get_pages().into_values() {
        let mut page = addition.get_dictionary(page_id)?.clone();
        // Copy inherited attributes to the page, because it moves to another page tree.
        for key in [b"Resources".as_slice(), b"MediaBox", b"CropBox", b"Rotate"] {
            if !page.has(key)
                && let Some(value) = inherited(&addition, &page, key)
            {
                page.set(key, value);
            }
        }
        page.set("Parent", Object::Reference(root_id));
        collect_references(&addition, &page, &mut objects)?;
        objects.insert(page_id, Object::Dictionary(page));
        kids.push(Object::Reference(page_id));
        count += 1;
    }
    tree.set("Kids", kids);
    tree.set("Count", count);
    objects.insert(root_id, Object::Dictionary(tree));

    let mut update = IncrementalDocument::create_from(original.to_vec(), document);
    let new_document = &mut update.new_document;
    new_document.objects.extend(objects);
    if let Some(&(highest, _)) = new_document.objects.keys().next_back() {
        new_document.max_id = new_document.max_id.max(highest);
    }
    let mut bytes = Vec::with_capacity(original.len() + 64 * 1024);
    update.save_to(&mut bytes)?;
    Ok(bytes)
}

/// The first object number after all numbers that the document uses or reserves. The trailer's `Size` also
/// counts a cross-reference stream, which is not among the objects.
fn first_free_id(document: &Document) -> u32 {
    let size = document
        .trailer
        .get(b"Size")
        .and_then(Object::as_i64)
        .unwrap_or_default();
    document
        .max_id
        .saturating_add(1)
        .max(u32::try_from(size).unwrap_or_default())
}

fn inherited(document: &Document, page: &Dictionary, key: &[u8]) -> Option<Object> {
    let mut node = page;
    // Limit the depth: a malicious page tree may be a ring, and no other page tree is that deep.
    for _ in 0..64 {
        node = document
            .get_dictionary(node.get(b"Parent").ok()?.as_reference().ok()?)
            .ok()?;
        if let Ok(value) = node.get(key) {
            return Some(value.clone());
        }
    }
    None
}

/// Collects into `objects` all objects that the page refers to, except its parent tree.
fn collect_references(
    document: &Document,
    page: &Dictionary,
    objects: &mut BTreeMap<ObjectId, Object>,
) -> lopdf::Result<()> {
    let mut due = VecDeque::new();
    for (key, value) in page {
        if key != b"Parent" {
            references(value, &mut due);
        }
    }
    while let Some(id) = due.pop_front() {
        if let Entry::Vacant(entry) = objects.entry(id) {
            let object = document.get_object(id)?;
            references(object, &mut due);
            entry.insert(object.clone());
        }
    }
    Ok(())
}

fn references(object: &Object, found: &mut VecDeque<ObjectId>) {
    match object {
        Object::Reference(id) => found.push_back(*id),
        Object::Array(items) => items.iter().for_each(|item| references(item, found)),
        Object::Dictionary(dict) => dict.iter().for_each(|(_, value)| references(value, found)),
        Object::Stream(stream) => stream
            .dict
            .iter()
            .for_each(|(_, value)| references(value, found)),
        _ => {}
    }
}

fn unusable(error: lopdf::Error) -> RenderError {
    RenderError::UnusableOriginal {
        reason: error.to_string(),
    }
}

fn moment(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}
