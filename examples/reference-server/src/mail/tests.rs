use super::*;

fn mail(key: &str) -> Mail {
    Mail {
        key: key.to_owned(),
        to: vec!["Recipient <recipient@example.com>".parse().unwrap()],
        cc: vec!["copy@example.com".parse().unwrap()],
        subject: "Contrato nº 7\r\nBcc: intruder@example.com".to_owned(),
        body: "Olá,\n.\nhere it is.".to_owned(),
        attachments: vec![Attachment {
            filename: "contract.pdf".to_owned(),
            content_type: ContentType::parse("application/pdf").unwrap(),
            content: bytes::Bytes::from_static(b"%PDF-1.7"),
        }],
    }
}

fn mailer() -> (tempfile::TempDir, Mailer) {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::in_folder(folder.path().join("files")).unwrap();
    let from = "docg <docg@example.com>".parse().unwrap();
    let mailer = Mailer::folder(folder.path().join("mail"), from, files);
    (folder, mailer)
}

fn written(folder: &tempfile::TempDir) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder.path().join("mail")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn a_mail_becomes_one_file_however_often_it_is_delivered() {
    let (folder, mailer) = mailer();
    let stop = CancellationToken::new();
    assert_eq!(mailer.outcome("a").await.unwrap(), Outcome::NotSent);
    let receipt = mailer.deliver(&mail("a"), &stop).await.unwrap();
    assert_eq!(
        receipt.accepted,
        ["recipient@example.com", "copy@example.com"]
    );
    assert_eq!(mailer.deliver(&mail("a"), &stop).await.unwrap(), receipt);
    assert_eq!(
        mailer.outcome("a").await.unwrap(),
        Outcome::Accepted(receipt)
    );
    assert_eq!(written(&folder).len(), 1);
    mailer.deliver(&mail("b"), &stop).await.unwrap();
    assert_eq!(written(&folder).len(), 2);
}

#[tokio::test]
async fn a_line_break_in_the_subject_begins_no_header() {
    let (folder, mailer) = mailer();
    mailer
        .deliver(&mail("a"), &CancellationToken::new())
        .await
        .unwrap();
    let text = std::fs::read_to_string(&written(&folder)[0]).unwrap();
    let head = text.split("\r\n\r\n").next().unwrap();
    assert!(!head.lines().any(|line| line.starts_with("Bcc:")), "{head}");
}

#[tokio::test]
async fn a_mail_that_cannot_be_written_says_why() {
    let (folder, mailer) = mailer();
    std::fs::write(
        folder.path().join("mail"),
        b"a file where the folder should be",
    )
    .unwrap();
    let refused = mailer.deliver(&mail("a"), &CancellationToken::new()).await;
    assert!(
        matches!(refused, Err(MailError::Files(FilesError::NotAFolder(_)))),
        "{refused:?}"
    );
}

#[test]
fn smtp_urls_are_read() {
    let read = |url: &str| SmtpServer::from_url(&url.parse().unwrap());
    let plain = read("smtp://127.0.0.1:2525").unwrap();
    assert_eq!((plain.host.as_str(), plain.port), ("127.0.0.1", 2525));
    assert_eq!(plain.encryption, server::Encryption::Opportunistic);
    let secret = read("smtp://user%40example.com:p%2Bw+d@mail.example.com").unwrap();
    assert_eq!(
        (secret.port, secret.encryption),
        (587, server::Encryption::Required)
    );
    assert_eq!(
        secret.credentials,
        Some(lettre::transport::smtp::authentication::Credentials::new(
            "user@example.com".to_owned(),
            "p+w+d".to_owned()
        ))
    );
    assert_eq!(read("smtps://mail.example.com").unwrap().port, 465);
    assert_eq!(
        read("smtp://a:b@localhost?tls=none").unwrap().encryption,
        server::Encryption::None
    );
    for wrong in [
        "http://a",
        "smtp://user@host",
        "smtp://host?tls=maybe",
        "smtps://host?tls=none",
    ] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
    assert!(
        !format!("{secret:?}").contains("p+w"),
        "passwords are not shown"
    );
}
