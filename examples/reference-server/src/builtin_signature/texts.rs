//! The texts of pages and mails, in English and Brazilian Portuguese.

use docg_core::{address::NameError, i18n::Locale, signature::NewSigner};
use serde::Serialize;

use super::{
    envelope::Envelope,
    invitation::{Occasion, language_of},
};
use crate::html::moment;

/// The texts of the page in one language.
#[derive(Debug, Serialize)]
pub(super) struct Words {
    pub(super) lang: &'static str,
    title: &'static str,
    asked: &'static str,
    open_document: &'static str,
    fingerprint: &'static str,
    signers: &'static str,
    state_signed: &'static str,
    state_open: &'static str,
    until: &'static str,
    sign_heading: &'static str,
    name_label: &'static str,
    consent: &'static str,
    sign_button: &'static str,
    decline_heading: &'static str,
    reason_label: &'static str,
    decline_button: &'static str,
    name_missing: &'static str,
    name_unfit: &'static str,
    consent_missing: &'static str,
    too_long: &'static str,
    unreadable_form: &'static str,
    not_found: [&'static str; 2],
    signed: [&'static str; 2],
    thanks: [&'static str; 2],
    already_signed: [&'static str; 2],
    complete: [&'static str; 2],
    declined_by_you: [&'static str; 2],
    declined: [&'static str; 2],
    expired: [&'static str; 2],
    canceled: [&'static str; 2],
    not_your_turn: [&'static str; 2],
    preparing: [&'static str; 2],
    broken: [&'static str; 2],
}

/// A notice on a page besides the form: a heading and a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    NotFound,
    Signed,
    Thanks,
    AlreadySigned,
    Complete,
    DeclinedByYou,
    Declined,
    Expired,
    Canceled,
    NotYourTurn,
    Preparing,
    Broken,
}

impl Words {
    pub(super) fn of(locale: Locale) -> &'static Self {
        match locale {
            Locale::En => &EN,
            Locale::PtBr => &PT_BR,
        }
    }

    pub(super) fn notice(&self, notice: Notice) -> [&'static str; 2] {
        match notice {
            Notice::NotFound => self.not_found,
            Notice::Signed => self.signed,
            Notice::Thanks => self.thanks,
            Notice::AlreadySigned => self.already_signed,
            Notice::Complete => self.complete,
            Notice::DeclinedByYou => self.declined_by_you,
            Notice::Declined => self.declined,
            Notice::Expired => self.expired,
            Notice::Canceled => self.canceled,
            Notice::NotYourTurn => self.not_your_turn,
            Notice::Preparing => self.preparing,
            Notice::Broken => self.broken,
        }
    }

    /// The message for a typed name that is unfit as a signature.
    pub(super) fn name_fault(&self, fault: NameError) -> &'static str {
        match fault {
            NameError::TooLong => self.too_long,
            NameError::Blank => self.name_missing,
            _ => self.name_unfit,
        }
    }

    pub(super) fn consent_missing(&self) -> &'static str {
        self.consent_missing
    }

    pub(super) fn too_long(&self) -> &'static str {
        self.too_long
    }

    pub(super) fn unreadable_form(&self) -> &'static str {
        self.unreadable_form
    }
}

static EN: Words = Words {
    lang: "en",
    title: "Sign a document",
    asked: "You are asked to sign this document.",
    open_document: "Open the document",
    fingerprint: "Fingerprint of the document (SHA-256)",
    signers: "Who signs",
    state_signed: "has signed",
    state_open: "has not signed yet",
    until: "Open until",
    sign_heading: "Sign",
    name_label: "Your full name",
    consent: "I have read the document and agree to sign it electronically.",
    sign_button: "Sign the document",
    decline_heading: "Not signing?",
    reason_label: "Reason (optional)",
    decline_button: "Decline to sign",
    name_missing: "Please type your full name.",
    name_unfit: "This name cannot be recorded as it is. Please type it in one line, without hidden characters and without an e-mail address.",
    consent_missing: "Please confirm that you have read the document and agree to sign it.",
    too_long: "Please shorten what you typed: a name has at most 200 characters, a reason 1,000.",
    unreadable_form: "The form could not be read. Please fill it in again.",
    not_found: [
        "This link does not work",
        "It may be incomplete. Open it again from the mail that you received, or ask the sender for a new one.",
    ],
    signed: [
        "You have signed",
        "There is nothing more for you to do. Others have yet to sign.",
    ],
    thanks: ["Thank you", "Your signature has been recorded."],
    already_signed: [
        "You have signed already",
        "Your signature was recorded before. Nothing was changed.",
    ],
    complete: [
        "This document has been signed",
        "All have signed. There is nothing more to do here.",
    ],
    declined_by_you: [
        "You have declined to sign",
        "The sender has been told. There is nothing more to do here.",
    ],
    declined: [
        "This document is no longer open for signing",
        "One of the signers has declined to sign it.",
    ],
    expired: [
        "The time for signing is over",
        "Ask the sender to send the document again.",
    ],
    canceled: [
        "This document is no longer open for signing",
        "The sender has withdrawn it.",
    ],
    not_your_turn: [
        "It is not your turn yet",
        "Others sign before you. You will get a mail when it is your turn.",
    ],
    preparing: [
        "This document is not ready to be signed yet",
        "The sender is still preparing it. Nothing was recorded. Please open the link again later.",
    ],
    broken: [
        "Something went wrong",
        "Nothing was recorded. Please try again in a few minutes.",
    ],
};

static PT_BR: Words = Words {
    lang: "pt-BR",
    title: "Assinar um documento",
    asked: "Pedimos que você assine este documento.",
    open_document: "Abrir o documento",
    fingerprint: "Impressão digital do documento (SHA-256)",
    signers: "Quem assina",
    state_signed: "já assinou",
    state_open: "ainda não assinou",
    until: "Aberto até",
    sign_heading: "Assinar",
    name_label: "Seu nome completo",
    consent: "Li o documento e concordo em assiná-lo eletronicamente.",
    sign_button: "Assinar o documento",
    decline_heading: "Não vai assinar?",
    reason_label: "Motivo (opcional)",
    decline_button: "Recusar a assinatura",
    name_missing: "Digite seu nome completo.",
    name_unfit: "Este nome não pode ser registrado como está. Digite-o em uma linha, sem caracteres invisíveis e sem endereço de e-mail.",
    consent_missing: "Confirme que leu o documento e que concorda em assiná-lo.",
    too_long: "Encurte o que digitou: um nome tem no máximo 200 caracteres, um motivo, 1.000.",
    unreadable_form: "Não foi possível ler o formulário. Preencha-o novamente.",
    not_found: [
        "Este link não funciona",
        "Ele pode estar incompleto. Abra-o novamente a partir do e-mail que você recebeu, ou peça um novo ao remetente.",
    ],
    signed: [
        "Você assinou",
        "Não há mais nada a fazer. Outras pessoas ainda vão assinar.",
    ],
    thanks: ["Obrigado", "Sua assinatura foi registrada."],
    already_signed: [
        "Você já assinou",
        "Sua assinatura já estava registrada. Nada foi alterado.",
    ],
    complete: [
        "Este documento já foi assinado",
        "Todos assinaram. Não há mais nada a fazer aqui.",
    ],
    declined_by_you: [
        "Você recusou a assinatura",
        "O remetente foi avisado. Não há mais nada a fazer aqui.",
    ],
    declined: [
        "Este documento não está mais aberto para assinatura",
        "Uma das pessoas recusou assiná-lo.",
    ],
    expired: [
        "O prazo para assinar terminou",
        "Peça ao remetente que envie o documento novamente.",
    ],
    canceled: [
        "Este documento não está mais aberto para assinatura",
        "O remetente o retirou.",
    ],
    not_your_turn: [
        "Ainda não é a sua vez",
        "Outras pessoas assinam antes de você. Você receberá um e-mail quando for a sua vez.",
    ],
    preparing: [
        "Este documento ainda não está pronto para ser assinado",
        "O remetente ainda o está preparando. Nada foi registrado. Abra o link novamente mais tarde.",
    ],
    broken: [
        "Algo deu errado",
        "Nada foi registrado. Tente novamente em alguns minutos.",
    ],
};

/// The subject and text of the mail with a signer's link. The English texts are plain ASCII, so that the link
/// appears unencoded in the mail's source.
pub(super) fn invitation(
    envelope: &Envelope,
    signer: &NewSigner,
    link: &str,
    occasion: Occasion,
) -> (String, String) {
    let title = envelope.document.title();
    let name = signer.name.as_deref().unwrap_or(&signer.email);
    let message = envelope
        .message
        .as_deref()
        .map(|text| format!("{text}\n\n"));
    let message = message.unwrap_or_default();
    let until = |words: &str| {
        let at = envelope.expires_at.map(moment);
        at.map(|at| format!("{words} {at}.\n\n"))
            .unwrap_or_default()
    };
    let reminder = occasion != Occasion::Invitation;
    match language_of(envelope) {
        Locale::En => {
            let subject = if reminder {
                "Reminder: please sign"
            } else {
                "Please sign"
            };
            let until = until("The document can be signed until");
            let body = format!(
                "Dear {name},\n\nyou are asked to sign \"{title}\".\n\n{message}To read and sign it, open:\n\n{link}\n\n{until}The link is for you alone: please do not forward it.\n"
            );
            (format!("{subject}: {title}"), body)
        }
        Locale::PtBr => {
            let subject = if reminder {
                "Lembrete: assine"
            } else {
                "Assine"
            };
            let until = until("O documento pode ser assinado até");
            let body = format!(
                "Olá, {name},\n\npedimos que você assine “{title}”.\n\n{message}Para ler e assinar, abra:\n\n{link}\n\n{until}O link é só para você: não o encaminhe.\n"
            );
            (format!("{subject}: {title}"), body)
        }
    }
}
