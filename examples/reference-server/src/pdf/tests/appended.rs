//! Tests of the page that is appended to a signed document.

use chrono::{DateTime, Utc};
use lopdf::{Document, Object, dictionary};
use sha2::{Digest, Sha256};

use super::{contract, sample, squeeze, text};
use crate::pdf::{Pdf, RenderError, SignaturePage, SignedBy, append_signature_page};

fn at(time: &str) -> DateTime<Utc> {
    time.parse().unwrap()
}

fn page(original: &[u8]) -> SignaturePage {
    SignaturePage {
        title: "Service Agreement 2026-0042".to_owned(),
        document_sha256: hex::encode(Sha256::digest(original)),
        signers: vec![
            SignedBy {
                name: "Legal representative of the provider".to_owned(),
                email: "signer.one@example.com".to_owned(),
                signed_at: at("2026-01-16T09:05:07Z"),
                ip: Some("192.0.2.7".to_owned()),
            },
            SignedBy {
                name: "Legal representative of the customer".to_owned(),
                email: "signer.two@example.com".to_owned(),
                signed_at: at("2026-01-17T21:30:00Z"),
                ip: None,
            },
        ],
        envelope_id: "envelope-1".to_owned(),
        completed_at: at("2026-01-17T21:30:00Z"),
    }
}

fn signed(original: &Pdf, language: &str) -> Pdf {
    append_signature_page(&original.bytes, &page(&original.bytes), language).unwrap()
}

#[test]
fn the_page_states_who_when_and_what() {
    let original = contract(&sample("good")).unwrap();
    let signed = signed(&original, "en");
    assert_eq!(signed.pages, original.pages + 1);
    let document = Document::load_mem(&signed.bytes).unwrap();
    let last = u32::try_from(signed.pages).unwrap();
    let text = squeeze(&document.extract_text(&[last]).unwrap());
    for expected in [
        "Signature record",
        "Service Agreement 2026-0042",
        "Pages signed 2",
        "envelope-1",
        &hex::encode(Sha256::digest(&original.bytes)),
        "signer.one@example.com IP address: 192.0.2.7 January 16, 2026, 09:05:07 UTC",
        "Legal representative of the customer signer.two@example.com January 17, 2026, 21:30:00 UTC",
        "Completed January 17, 2026, 21:30:00 UTC",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in: {text}");
    }
}

#[test]
fn the_original_is_the_beginning_of_the_signed_file() {
    let original = contract(&sample("good")).unwrap();
    let signed = signed(&original, "en");
    assert!(signed.bytes.starts_with(&original.bytes));
    let (before, after) = (text(&original), text(&signed));
    assert!(after.starts_with(&before), "{after}");
}

#[test]
fn the_page_speaks_portuguese() {
    let original = contract(&sample("good.pt-BR")).unwrap();
    let text = text(&signed(&original, "pt-BR"));
    for expected in [
        "Registro de assinaturas",
        "16 de janeiro de 2026, 09:05:07 UTC",
        "Endereço IP",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in: {text}");
    }
}

#[test]
fn a_signed_file_can_be_extended_again() {
    let original = contract(&sample("good")).unwrap();
    let once = signed(&original, "en");
    let twice = signed(&once, "pt-BR");
    assert_eq!(twice.pages, original.pages + 2);
    let text = text(&twice);
    assert!(text.contains("Signature record") && text.contains("Registro de assinaturas"));
}

#[test]
fn many_signers_run_over_pages() {
    let original = contract(&sample("good")).unwrap();
    let mut page = page(&original.bytes);
    page.signers = vec![page.signers[0].clone(); 50];
    let signed = append_signature_page(&original.bytes, &page, "en").unwrap();
    assert!(signed.pages > original.pages + 1);
    assert_eq!(
        text(&signed).matches("signer.one@example.com IP").count(),
        50
    );
}

#[test]
fn a_file_from_another_program_is_extended_too() {
    let mut document = Document::with_version("1.4");
    let tree = document.new_object_id();
    let kids: Vec<Object> = (0..3)
        .map(|_| {
            document
                .add_object(dictionary! {"Type" => "Page", "Parent" => tree})
                .into()
        })
        .collect();
    let kids = document.add_object(kids);
    let pages = dictionary! {
        "Type" => "Pages", "Kids" => kids, "Count" => 3,
        "MediaBox" => vec![0.into(), 0.into(), 300.into(), 400.into()],
    };
    document.objects.insert(tree, pages.into());
    let catalog = document.add_object(dictionary! {"Type" => "Catalog", "Pages" => tree});
    document.trailer.set("Root", catalog);
    let mut bytes = Vec::new();
    document.save_to(&mut bytes).unwrap();

    let signed = append_signature_page(&bytes, &page(&bytes), "en").unwrap();
    assert_eq!(signed.pages, 4);
    let document = Document::load_mem(&signed.bytes).unwrap();
    assert_eq!(document.get_pages().len(), 4);
    assert!(
        document
            .extract_text(&[4])
            .unwrap()
            .contains("Signature record")
    );
}

#[test]
fn the_hash_of_another_document_is_refused() {
    let original = contract(&sample("good")).unwrap();
    let mut page = page(&original.bytes);
    page.document_sha256 = "0".repeat(64);
    let error = append_signature_page(&original.bytes, &page, "en").unwrap_err();
    assert!(matches!(error, RenderError::HashMismatch { .. }), "{error}");
}

#[test]
fn what_is_no_pdf_is_refused() {
    let original = contract(&sample("good")).unwrap();
    for broken in [
        &b""[..],
        b"no PDF",
        &original.bytes[..original.bytes.len() / 2],
    ] {
        let error = append_signature_page(broken, &page(broken), "en").unwrap_err();
        assert!(
            matches!(error, RenderError::UnusableOriginal { .. }),
            "{error}"
        );
    }
}
