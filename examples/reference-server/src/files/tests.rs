use docg_core::{
    error::FailureClass,
    ids::{ExecutionId, NodeId, OrganizationId},
};
use serde_json::json;
use unicode_normalization::UnicodeNormalization;

use super::*;

fn files() -> (tempfile::TempDir, Files) {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::in_folder(folder.path()).unwrap();
    (folder, files)
}

fn origin(organization_id: OrganizationId) -> Origin {
    Origin {
        organization_id,
        execution_id: ExecutionId::new(),
        node_id: NodeId::from("render"),
    }
}

const HOSTILE: [&str; 14] = [
    "..",
    "../..",
    "../../etc/passwd",
    "/etc/passwd",
    "a/../../b",
    "..\\..\\windows",
    "a\0b",
    "a\nb",
    ".hidden",
    "%2e%2e%2f",
    "\u{202e}fdp.exe",
    "a//b",
    "./a",
    "con:stream",
];

#[tokio::test]
async fn a_document_is_read_back_by_its_own_organization_only() {
    let (_folder, files) = files();
    let (ours, theirs) = (OrganizationId::new(), OrganizationId::new());
    let content = Bytes::from_static(b"%PDF-1.7 content");
    let document = files
        .put_document(&origin(ours), "Contract", content.clone(), None)
        .await
        .unwrap();
    assert_eq!(files.read_document(ours, &document).await.unwrap(), content);
    assert!(matches!(
        files.read_document(theirs, &document).await,
        Err(FilesError::NotFound(_))
    ));
}

#[tokio::test]
async fn a_document_that_was_changed_on_disk_is_not_given_out() {
    let (folder, files) = files();
    let organization = OrganizationId::new();
    let document = files
        .put_document(
            &origin(organization),
            "a",
            Bytes::from_static(b"original"),
            None,
        )
        .await
        .unwrap();
    std::fs::write(folder.path().join(&document.path), b"another").unwrap();
    assert!(matches!(
        files.read_document(organization, &document).await,
        Err(FilesError::Changed(_))
    ));
}

#[tokio::test]
async fn no_hostile_file_name_leaves_the_step_s_folder() {
    let (folder, files) = files();
    let origin = origin(OrganizationId::new());
    for name in HOSTILE {
        let document = files
            .put_document(&origin, name, Bytes::from_static(b"x"), None)
            .await
            .unwrap();
        assert!(
            names::is_document_of(&document.path, origin.organization_id),
            "{name:?} became {:?}",
            document.path
        );
        let on_disk = folder.path().join(&document.path).canonicalize().unwrap();
        let own = format!(
            "documents/{}/{}/render",
            origin.organization_id, origin.execution_id
        );
        assert_eq!(
            on_disk.parent().unwrap(),
            folder.path().canonicalize().unwrap().join(own)
        );
        let saved = files
            .save(&origin, "", name, Bytes::from_static(b"x"))
            .await
            .unwrap();
        assert!(
            saved.url.contains(&origin.execution_id.to_string()),
            "{}",
            saved.url
        );
    }
}

#[tokio::test]
async fn no_hostile_folder_is_taken() {
    let (_folder, files) = files();
    let organization = OrganizationId::new();
    for name in HOSTILE {
        let saved = files
            .save(&origin(organization), name, "a.pdf", Bytes::new())
            .await;
        assert!(
            matches!(saved, Err(FilesError::BadFolder(_))),
            "{name:?}: {saved:?}"
        );
        assert!(
            files.probe_folder(organization, name).await.is_err(),
            "{name:?}"
        );
    }
    for name in ["", "contracts", "Contratos/São Paulo 2026", "a.b/c-d_(1)/"] {
        files.probe_folder(organization, name).await.unwrap();
        files
            .save(&origin(organization), name, "a.pdf", Bytes::new())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_hostile_description_of_a_document_reads_nothing() {
    let (folder, files) = files();
    let organization = OrganizationId::new();
    std::fs::write(folder.path().join("secret.key"), b"secret").unwrap();
    files
        .put_record(RecordKind::MailSent, "abc", &json!({"a": 1}))
        .await
        .unwrap();
    let sha256 = hex::encode(Sha256::digest(b"secret"));
    let prefix = format!("documents/{organization}");
    for path in [
        "secret.key".to_owned(),
        "../secret.key".to_owned(),
        "records/sent/abc.json".to_owned(),
        format!("{prefix}/a/b/../../../../secret.key"),
        format!("{prefix}/a/b/.."),
        format!("{prefix}/../a/b"),
        format!("{prefix}/a/b"),
        format!("{prefix}//a/b"),
        format!("/{prefix}/a/b/c"),
    ] {
        let value = json!({"path": path, "filename": "a.pdf", "content_type": "application/pdf",
            "bytes": 6, "sha256": sha256});
        let document = Document::from_value(&value).unwrap();
        let read = files.read_document(organization, &document).await;
        assert!(
            matches!(read, Err(FilesError::NotFound(_))),
            "{path}: {read:?}"
        );
    }
}

#[tokio::test]
async fn a_file_in_the_place_of_a_folder_is_told_from_a_disk_that_fails() {
    let (folder, files) = files();
    let organization = OrganizationId::new();
    let own = folder.path().join(format!("saved/{organization}"));
    std::fs::create_dir_all(&own).unwrap();
    std::fs::write(own.join("taken"), b"a file").unwrap();
    let probed = files.probe_folder(organization, "taken").await;
    assert!(
        matches!(probed, Err(FilesError::NotAFolder(_))),
        "{probed:?}"
    );
    let saved = files
        .save(&origin(organization), "taken", "a.pdf", Bytes::new())
        .await;
    assert!(matches!(saved, Err(FilesError::NotAFolder(_))), "{saved:?}");
    let failure = saved.unwrap_err().failure(&"save", "folder");
    assert_eq!(failure.context.code, "local.folder_not_found");
}

#[test]
fn operating_system_errors_become_codes_with_an_action() {
    use std::io::{Error, ErrorKind as Kind};
    for (kind, code) in [
        (Kind::StorageFull, "storage_full"),
        (Kind::QuotaExceeded, "storage_full"),
        (Kind::PermissionDenied, "local.insufficient_permissions"),
        (Kind::ReadOnlyFilesystem, "local.insufficient_permissions"),
        (Kind::NotADirectory, "local.folder_not_found"),
        (Kind::InvalidFilename, "invalid_field_format"),
        (Kind::InvalidInput, "invalid_field_format"),
        (Kind::FileTooLarge, "storage_full"),
        (Kind::IsADirectory, "local.folder_not_found"),
        (Kind::TimedOut, "storage_error"),
        (Kind::Interrupted, "storage_error"),
        (Kind::ResourceBusy, "storage_error"),
        (Kind::Other, "storage_error"),
    ] {
        let error = FilesError::from_io(&Error::from(kind));
        let failure = error.failure(&"save", "folder");
        assert_eq!(failure.context.code, code, "{kind:?}");
        // Only errors that may pass by themselves are retried.
        let class = match code {
            "storage_error" => FailureClass::Retryable,
            _ => FailureClass::Review,
        };
        assert_eq!(failure.class, class, "{kind:?}");
    }
}

#[test]
fn what_a_bucket_answers_is_tried_again_only_where_that_can_help() {
    for (answer, code) in [
        (
            "404 Not Found: <Code>NoSuchBucket</Code>",
            "storage_misconfigured",
        ),
        (
            "301: <Code>PermanentRedirect</Code>",
            "storage_misconfigured",
        ),
        (
            "403: <Code>SignatureDoesNotMatch</Code>",
            "storage_misconfigured",
        ),
        ("400: <Code>KeyTooLongError</Code>", "invalid_field_format"),
        ("400: <Code>EntityTooLarge</Code>", "storage_full"),
        ("503: <Code>SlowDown</Code>", "storage_error"),
        ("500: <Code>InternalError</Code>", "storage_error"),
    ] {
        let error = object_store::Error::Generic {
            store: "S3",
            source: answer.into(),
        };
        let failure = FilesError::from(error).failure(&"save", "folder");
        assert_eq!(failure.context.code, code, "{answer}");
        let again = failure.class == FailureClass::Retryable;
        assert_eq!(again, code == "storage_error", "{answer}");
    }
}

#[tokio::test]
async fn two_steps_that_save_under_one_name_keep_both_files() {
    let (_folder, files) = files();
    let first = origin(OrganizationId::new());
    let mut second = first.clone();
    second.node_id = NodeId::from("again");
    let save = async |origin: &Origin, name: &str| {
        let content = Bytes::copy_from_slice(origin.node_id.as_str().as_bytes());
        let saved = files.save(origin, "a", name, content).await.unwrap();
        let url: Url = saved.url.parse().unwrap();
        url.to_file_path().unwrap()
    };
    let paths = [
        save(&first, "Contract").await,
        save(&second, "contract").await,
    ];
    assert_eq!(std::fs::read(&paths[0]).unwrap(), b"render");
    assert_eq!(std::fs::read(&paths[1]).unwrap(), b"again");
    assert_eq!(save(&first, "Contract").await, paths[0], "a repeat");
}

#[tokio::test]
async fn every_name_and_folder_that_is_taken_can_be_written() {
    let (_folder, files) = files();
    let own = origin(OrganizationId::new());
    let folder = vec!["契".repeat(42); 4].join("/");
    for name in ["契".repeat(1000), "a".repeat(1000), "👩".repeat(500)] {
        let content = Bytes::from_static(b"x");
        files.save(&own, &folder, &name, content).await.unwrap();
    }
    let deeper = vec!["契".repeat(42); 5].join("/");
    let refused = files.save(&own, &deeper, "a", Bytes::new()).await;
    assert!(matches!(refused, Err(FilesError::BadFolder(_))));
}

#[tokio::test]
async fn only_the_first_of_two_notes_of_one_name_is_created() {
    let (_folder, files) = files();
    let create = async |value: u32| {
        files
            .create_record(RecordKind::Decision, "a.b", &value)
            .await
    };
    assert!(create(1).await.unwrap());
    assert!(!create(2).await.unwrap());
    let kept: Option<u32> = files.record(RecordKind::Decision, "a.b").await.unwrap();
    assert_eq!(kept, Some(1));
    assert_eq!(
        files.record_names(RecordKind::Decision).await.unwrap(),
        ["a.b"]
    );
    files
        .delete_record(RecordKind::Decision, "a.b")
        .await
        .unwrap();
    files
        .delete_record(RecordKind::Decision, "a.b")
        .await
        .unwrap();
    assert!(
        files
            .record_names(RecordKind::Decision)
            .await
            .unwrap()
            .is_empty()
    );
}

#[test]
fn file_names_stay_readable() {
    for (text, name) in [
        ("2026/0042", "2026-0042.pdf"),
        (
            "Contrato nº 7 - São Paulo.PDF",
            "Contrato nº 7 - São Paulo.pdf",
        ),
        ("a\r\nContent-Type: x", "a--Content-Type- x.pdf"),
        ("", "document.pdf"),
        ("....", "document.pdf"),
        (".pdf", "document.pdf"),
        ("Sa\u{303}o", "São.pdf"),
        ("संविदा पत्र", "संविदा पत्र.pdf"),
        ("สัญญาเช่า", "สัญญาเช่า.pdf"),
        ("Ana & Bia, Ltda. ✍", "Ana & Bia, Ltda. ✍.pdf"),
        ("a\u{202E}fdp.exe", "a-fdp.exe.pdf"),
        ("a\u{200B}\u{FEFF}\u{2028}b", "a---b.pdf"),
        ("..\\..\\a:b|c?", "a-b-c.pdf"),
        ("NUL", "_NUL.pdf"),
        ("com1.old.pdf", "_com1.old.pdf"),
        ("console", "console.pdf"),
        ("a#1", "a-1.pdf"),
        ("a%2Fb", "a-2Fb.pdf"),
        ("name. .", "name.pdf"),
    ] {
        assert_eq!(clean_filename(text, "pdf"), name, "{text:?}");
    }
    for name in [
        "x".repeat(1000),
        "契".repeat(90),
        "é".repeat(500),
        format!("a{}", "\u{301}".repeat(1000)),
        "👩\u{200D}👩\u{200D}👧".repeat(60),
        "नि".repeat(200),
    ] {
        let clean = clean_filename(&name, "pdf");
        assert!(clean.len() <= 200 && clean.ends_with(".pdf"), "{clean}");
        assert!(
            clean == "document.pdf"
                || name
                    .nfc()
                    .collect::<String>()
                    .starts_with(&clean[..clean.len() - 4]),
            "{clean}"
        );
        let signed = names::clean_stem(&clean[..clean.len() - 4], "-signed.pdf");
        assert!(
            signed.len() <= 200 && signed.ends_with("-signed.pdf"),
            "{signed}"
        );
    }
    // Names are cut between characters as readers see them.
    let family = clean_filename(&"👩\u{200D}👩\u{200D}👧".repeat(60), "pdf");
    assert!(family.ends_with("👧.pdf"), "{family}");
}

#[test]
fn files_at_other_urls_are_refused_by_name() {
    let refused = Files::at_url(&"gs://bucket/prefix".parse().unwrap()).unwrap_err();
    assert!(refused.to_string().contains("gs"), "{refused}");
}
