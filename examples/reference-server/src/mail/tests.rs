use mail_parser::MessageParser;
use proptest::prelude::*;

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

/// Asserts the rules for every mail: lines end in CRLF and are not too long, and headers are printable ASCII.
fn assert_well_formed(written: &[u8]) {
    let text = String::from_utf8(written.to_vec()).unwrap();
    let plain = text.replace("\r\n", "");
    assert!(
        !plain.contains(['\r', '\n']),
        "a line break of another kind"
    );
    assert!(text.split("\r\n").all(|line| line.len() <= 998), "{text}");
    let (head, _) = text.split_once("\r\n\r\n").unwrap();
    for line in head.split("\r\n") {
        assert!(line.bytes().all(|b| (b' '..=b'~').contains(&b)), "{line:?}");
        assert!(!line.trim().is_empty() && line.len() <= 330, "{line:?}");
    }
}

/// Writes a mail and compares the values that another library reads from it with the originals.
fn assert_reads_the_same(mail: &Mail) {
    let from = "docg <docg@example.com>".parse().unwrap();
    let written = message::write(mail, &from, "<id@example.com>", true).unwrap();
    assert_well_formed(&written);
    assert_eq!(message::recipients(&written), mail.accepted());
    let read = MessageParser::default().parse(&written).unwrap();
    let list = |list: Option<&mail_parser::Address<'_>>| -> Vec<(Option<String>, String)> {
        let list = list.into_iter().flat_map(|list| list.iter());
        list.map(|it| {
            (
                it.name().map(str::to_owned),
                it.address().unwrap_or_default().to_owned(),
            )
        })
        .collect()
    };
    let given = |list: Vec<&Address>| -> Vec<(Option<String>, String)> {
        let list = list.into_iter();
        list.map(|it| (it.name().map(str::to_owned), it.ascii().to_owned()))
            .collect()
    };
    let (to, cc) = mail.recipients();
    assert_eq!(list(read.to()), given(to));
    assert_eq!(list(read.cc()), given(cc));
    let subject: String = mail
        .subject
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    assert_eq!(read.subject().unwrap_or_default(), subject);
    let lines = |text: &str| -> Vec<String> {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        text.trim_end().lines().map(str::to_owned).collect()
    };
    assert_eq!(
        lines(&read.body_text(0).unwrap_or_default()),
        lines(&mail.body)
    );
    assert_eq!(read.attachment_count(), mail.attachments.len());
}

/// Names as people write them, and names that try to break the mail's headers.
fn names() -> impl Strategy<Value = String> {
    let ugly = [
        "Ana",
        "Silva, Ana",
        "A \"B\" C",
        "back\\slash",
        "=?utf-8?q?a?=",
        "O'Neil; (Boss) <x>",
        "José",
        "محمد علي",
        "אנה",
        "Ана",
        "李四",
        "👩‍⚖️ 👨‍👩‍👧‍👦",
        "a:b;c",
        "  two  blanks  ",
        "x@",
        "e\u{301}",
    ];
    let long = prop::sample::select(vec!["x", "é", "李", "👩‍⚖️ "]).prop_map(|part| part.repeat(66));
    prop_oneof![
        prop::sample::select(ugly.to_vec()).prop_map(str::to_owned),
        long,
        any::<String>()
    ]
}

fn address(index: usize, name: &str, domain: &str) -> Address {
    let address: Address = format!("a{index}@{domain}").parse().unwrap();
    address.clone().named(Some(name)).unwrap_or(address)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_mail_is_well_formed_and_says_what_was_given(
        names in prop::collection::vec(names(), 1..4),
        domain in prop::sample::select(vec!["example.com", "exämple.com", "例え.jp", "localhost"]),
        subject in prop_oneof![names(), "[ -~]{0,80}", "x{900,1100}"],
        body in prop_oneof![names(), "[ -~\r\n\t]{0,200}", "x{900,1100}"],
        filename in names(),
    ) {
        let list = names.iter().enumerate().map(|(index, name)| address(index, name, domain));
        let mut mail = mail("a");
        mail.to = list.collect();
        mail.cc = mail.to.clone();
        mail.cc.push(address(9, "Copy", domain));
        (mail.subject, mail.body) = (subject, body.replace('\0', ""));
        mail.attachments[0].filename = filename;
        assert_reads_the_same(&mail);
    }
}

#[test]
fn fifty_recipients_with_long_names_and_addresses_fit_into_lines() {
    let domain = format!("{}.example", ["x".repeat(60).as_str(); 2].join("."));
    let mut mail = mail("a");
    for name in ["x".repeat(200), "é".repeat(200), "a".repeat(60)] {
        mail.to = (0..50)
            .map(|index| address(index, &name, &domain))
            .collect();
        mail.subject = name.repeat(5);
        assert_reads_the_same(&mail);
    }
}

#[tokio::test]
async fn a_mailbox_gets_a_mail_once_however_it_is_spelled() {
    let (_folder, mailer) = mailer();
    let mut mail = mail("a");
    let spelled = |text: &str| text.parse::<Address>().unwrap();
    mail.to = [
        "ana@exämple.com",
        "Ana <ANA@xn--exmple-cua.com>",
        "ben@example.com",
    ]
    .map(spelled)
    .into();
    mail.cc = ["Ben@Example.com", "carl@example.com"].map(spelled).into();
    let receipt = mailer
        .deliver(&mail, &CancellationToken::new())
        .await
        .unwrap();
    let expected = [
        "ana@xn--exmple-cua.com",
        "ben@example.com",
        "carl@example.com",
    ];
    assert_eq!(receipt.accepted, expected);
}

#[cfg(unix)]
#[tokio::test]
async fn a_written_mail_is_for_the_server_s_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, mailer) = mailer();
    let stop = CancellationToken::new();
    mailer.deliver(&mail("a"), &stop).await.unwrap();
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder.path().join("mail")), 0o700);
    assert_eq!(mode(&folder.path().join("files")), 0o700);
    assert_eq!(mode(&written(&folder)[0]), 0o600);
}

#[test]
fn a_broken_smtp_url_is_not_repeated() {
    for broken in [
        "smtp://user:canary@host:port",
        "smtp://user:canary@",
        "smtp:user:canary@host",
        "canary",
        "canary://host",
        "canary:canary@host",
        "http://user:canary@host",
        "smtp://user:can/canary@host",
        "smtp://canary@host",
        "smtp://user:canary@host?tls=canary",
        "smtp://user:canary@host?canary=1",
        "smtp://user:canary@[::1",
        "smtps://user:canary@host?tls=none",
        "smtp://user:canary@ho st",
        "smtp://user:%zz@host:99999/canary",
    ] {
        let refused = SmtpServer::from_text(broken).unwrap_err();
        let shown = format!("{refused} {refused:?}");
        assert!(!shown.contains("canary"), "{broken}: {shown}");
    }
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
