//! The texts of pages and mails, in English and Brazilian Portuguese.

use docg_core::{
    approval::{Approval, ApprovalStatus, Decision, Invitation},
    engine::RefusedVote,
    i18n::Locale,
};
use serde::Serialize;

use crate::html::moment;

/// The texts of the page in one language.
#[derive(Debug, Serialize)]
pub(super) struct Words {
    #[serde(skip)]
    locale: Locale,
    lang: &'static str,
    title: &'static str,
    asked: &'static str,
    until: &'static str,
    open_document: &'static str,
    approvers: &'static str,
    needed: &'static str,
    approved: &'static str,
    rejected: &'static str,
    open: &'static str,
    approve_heading: &'static str,
    approve_button: &'static str,
    reject_heading: &'static str,
    reject_button: &'static str,
    comment: &'static str,
    pub(super) unreadable_form: &'static str,
    pub(super) comment_too_long: &'static str,
    pub(super) comment_unfit: &'static str,
    pub(super) not_found: [&'static str; 2],
    pub(super) broken: [&'static str; 2],
    pub(super) sent: [&'static str; 2],
}

/// A notice on a page: a heading and a sentence.
pub(super) type Notice = [String; 2];

pub(super) fn notice(words: [&str; 2]) -> Notice {
    words.map(str::to_owned)
}

impl Words {
    pub(super) fn of(locale: Locale) -> &'static Self {
        match locale {
            Locale::En => &EN,
            Locale::PtBr => &PT_BR,
        }
    }

    /// The text that says whether an approver has approved, has rejected or has not answered.
    pub(super) fn answer(&self, vote: Option<Decision>) -> &'static str {
        match vote {
            Some(Decision::Approved) => self.approved,
            Some(Decision::Rejected) => self.rejected,
            None => self.open,
        }
    }

    /// The notice that tells an approver why they cannot vote any more. `None` if they can.
    pub(super) fn standing(
        &self,
        approval: &Approval,
        status: ApprovalStatus,
        own_vote: Option<Decision>,
    ) -> Option<Notice> {
        let made = self.decision_made(approval);
        match (status, own_vote) {
            (ApprovalStatus::Pending, None) => None,
            (ApprovalStatus::Pending, Some(_)) => Some(notice(match self.locale {
                Locale::En => [
                    "Your answer was recorded",
                    "The others have not decided yet.",
                ],
                Locale::PtBr => [
                    "Sua resposta foi registrada",
                    "As outras pessoas ainda não decidiram.",
                ],
            })),
            (ApprovalStatus::Approved, _) => Some([self.approved_heading().to_owned(), made]),
            (ApprovalStatus::Rejected, _) => Some([self.rejected_heading().to_owned(), made]),
            (ApprovalStatus::Expired, _) => Some(self.refused(RefusedVote::Expired, approval)),
            (ApprovalStatus::Canceled, _) => Some(self.refused(RefusedVote::Canceled, approval)),
        }
    }

    /// The notice to an approver whose answer is not counted.
    pub(super) fn refused(&self, reason: RefusedVote, approval: &Approval) -> Notice {
        match (reason, self.locale) {
            (RefusedVote::Decided, Locale::En) => [
                "The decision had already been made".to_owned(),
                format!(
                    "{} Your answer was not counted.",
                    self.decision_made(approval)
                ),
            ],
            (RefusedVote::Decided, Locale::PtBr) => [
                "A decisão já havia sido tomada".to_owned(),
                format!(
                    "{} Sua resposta não foi contada.",
                    self.decision_made(approval)
                ),
            ],
            (RefusedVote::AlreadyVoted, Locale::En) => notice([
                "You have already answered",
                "Your first answer stays as it is. The others have not decided yet.",
            ]),
            (RefusedVote::AlreadyVoted, Locale::PtBr) => notice([
                "Você já respondeu",
                "Sua primeira resposta permanece. As outras pessoas ainda não decidiram.",
            ]),
            (RefusedVote::Expired, Locale::En) => notice([
                "The time to decide is over",
                "There is nothing more to do here. Ask the sender if you have questions.",
            ]),
            (RefusedVote::Expired, Locale::PtBr) => notice([
                "O prazo para decidir terminou",
                "Não há mais nada a fazer aqui. Em caso de dúvida, fale com o remetente.",
            ]),
            (RefusedVote::Canceled, Locale::En) => notice([
                "There is nothing to decide any more",
                "The sender has withdrawn the request.",
            ]),
            (RefusedVote::Canceled, Locale::PtBr) => notice([
                "Não há mais nada a decidir",
                "O remetente retirou o pedido.",
            ]),
        }
    }

    fn approved_heading(&self) -> &'static str {
        match self.locale {
            Locale::En => "Approved",
            Locale::PtBr => "Aprovado",
        }
    }

    fn rejected_heading(&self) -> &'static str {
        match self.locale {
            Locale::En => "Not approved",
            Locale::PtBr => "Não aprovado",
        }
    }

    /// The sentence with the decision, the person who made it, and the time.
    fn decision_made(&self, approval: &Approval) -> String {
        let at = approval.decided_at.map(moment).unwrap_or_default();
        let decider = approval.decided_by.as_deref().unwrap_or_default();
        let by_person = approval.approvers.iter().any(|a| a.email == decider);
        match (approval.decision, by_person, self.locale) {
            (Some(Decision::Approved), false, Locale::En) => {
                format!("Nobody refused in time, which counts as approval ({at}).")
            }
            (Some(Decision::Approved), false, Locale::PtBr) => {
                format!("Ninguém recusou a tempo, o que vale como aprovação ({at}).")
            }
            (Some(Decision::Approved), true, Locale::En) => {
                format!("{decider} approved on {at}.")
            }
            (Some(Decision::Approved), true, Locale::PtBr) => {
                format!("{decider} aprovou em {at}.")
            }
            (Some(Decision::Rejected), _, Locale::En) => {
                format!("{decider} did not approve, on {at}.")
            }
            (Some(Decision::Rejected), _, Locale::PtBr) => {
                format!("{decider} não aprovou, em {at}.")
            }
            (None, ..) => String::new(),
        }
    }
}

static EN: Words = Words {
    locale: Locale::En,
    lang: "en",
    title: "Your decision is needed",
    asked: "You are asked to approve this.",
    until: "Open until",
    open_document: "Open the document",
    approvers: "Who decides",
    needed: "Approvals needed",
    approved: "has approved",
    rejected: "has not approved",
    open: "has not answered",
    approve_heading: "Approve",
    approve_button: "Approve",
    reject_heading: "Not approving?",
    reject_button: "Do not approve",
    comment: "Comment (optional)",
    unreadable_form: "The form could not be read. Please fill it in again.",
    comment_too_long: "The comment is too long. Please keep it below 2000 characters.",
    comment_unfit: "The comment has hidden characters that cannot be recorded, so nothing was. Please type it again.",
    not_found: [
        "This link does not work",
        "It may be incomplete, or not be open yet. Open it again from the mail that you received, or ask the sender for a new one.",
    ],
    broken: [
        "Something went wrong",
        "Please open the link again in a few minutes to see whether your answer was recorded.",
    ],
    sent: [
        "Your answer has been received",
        "It is being recorded. Open the link again in a moment to see the outcome.",
    ],
};

static PT_BR: Words = Words {
    locale: Locale::PtBr,
    lang: "pt-BR",
    title: "Sua decisão é necessária",
    asked: "Pedimos a sua aprovação.",
    until: "Aberto até",
    open_document: "Abrir o documento",
    approvers: "Quem decide",
    needed: "Aprovações necessárias",
    approved: "aprovou",
    rejected: "não aprovou",
    open: "ainda não respondeu",
    approve_heading: "Aprovar",
    approve_button: "Aprovar",
    reject_heading: "Não vai aprovar?",
    reject_button: "Não aprovar",
    comment: "Comentário (opcional)",
    unreadable_form: "Não foi possível ler o formulário. Preencha-o novamente.",
    comment_too_long: "O comentário é longo demais. Use menos de 2000 caracteres.",
    comment_unfit: "O comentário tem caracteres ocultos que não podem ser registrados, e nada foi registrado. Digite-o novamente.",
    not_found: [
        "Este link não funciona",
        "Ele pode estar incompleto ou ainda não estar aberto. Abra-o novamente a partir do e-mail que você recebeu, ou peça um novo ao remetente.",
    ],
    broken: [
        "Algo deu errado",
        "Abra o link novamente em alguns minutos para ver se a sua resposta foi registrada.",
    ],
    sent: [
        "Sua resposta foi recebida",
        "Ela está sendo registrada. Abra o link novamente em instantes para ver o resultado.",
    ],
};

/// The workflow and the document that a mail is about, and the language of the mail.
pub(super) struct About<'a> {
    pub(super) workflow: Option<&'a str>,
    pub(super) document: Option<&'a str>,
    pub(super) locale: Locale,
}

/// The subject and text of the mail with an approver's link. The English texts are plain ASCII, so that the
/// link appears unencoded in the mail's source.
pub(super) fn invitation(
    about: &About<'_>,
    invitation: &Invitation,
    link: &str,
) -> (String, String) {
    let topic = about.document.or(about.workflow);
    let paragraph = |text: Option<String>| text.map(|t| format!("{t}\n\n")).unwrap_or_default();
    let message = paragraph(invitation.message.clone());
    let until = |words: &str| {
        let at = invitation.expires_at.map(moment);
        paragraph(at.map(|at| format!("{words} {at}.")))
    };
    match about.locale {
        Locale::En => {
            let subject = topic.map_or_else(
                || "Please approve".to_owned(),
                |topic| format!("Please approve: {topic}"),
            );
            let asked = topic.map_or_else(
                || "Your approval is needed.".to_owned(),
                |topic| format!("Your approval of \"{topic}\" is needed."),
            );
            let until = until("You can decide until");
            let body = format!(
                "Hello,\n\n{asked}\n\n{message}To see it and decide, open:\n\n{link}\n\n{until}The link is for you alone: please do not forward it.\n"
            );
            (subject, body)
        }
        Locale::PtBr => {
            let subject = topic.map_or_else(
                || "Aprovação necessária".to_owned(),
                |topic| format!("Aprovação necessária: {topic}"),
            );
            let asked = topic.map_or_else(
                || "Sua aprovação é necessária.".to_owned(),
                |topic| format!("Sua aprovação de “{topic}” é necessária."),
            );
            let until = until("Você pode decidir até");
            let body = format!(
                "Olá,\n\n{asked}\n\n{message}Para ver e decidir, abra:\n\n{link}\n\n{until}O link é só para você: não o encaminhe.\n"
            );
            (subject, body)
        }
    }
}
