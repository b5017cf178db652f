//! docg's own table of actions by code.

use super::ActionTemplate;
use crate::{i18n::Text, preflight::Domain};

/// The template of an action: its name, and the prefix of its keys in `locales/*.ftl`.
macro_rules! template {
    ($action:literal, $key:literal) => {
        ActionTemplate {
            action: std::borrow::Cow::Borrowed($action),
            label: Text::key(concat!("action-", $key, "-label")),
            description: Text::key(concat!("action-", $key, "-description")),
        }
    };
}

macro_rules! table {
    ($($($code:literal)|+ => $action:literal $key:literal;)+) => {
        /// Every code with an action of its own, and the action.
        pub(super) fn entries() -> Vec<(&'static str, ActionTemplate)> {
            vec![$($(($code, template!($action, $key)),)+)+]
        }
    };
}

table! {
    // The codes of the API contract. Clients rely on them and on their actions, so none is renamed.
    "drive.insufficient_permissions" | "onedrive.insufficient_permissions" | "insufficient_permissions"
        => "fix_permissions" "fix-permissions";
    "drive.folder_not_found" | "folder_not_found" => "select_folder" "select-folder";
    "unresolved_variables" => "map_fields" "map-fields";
    "missing_required_field" | "missing_recipient" => "fill_required" "fill-required";
    "invalid_field_format" | "invalid_email_format" => "fix_field_format" "fix-field-format";
    "oauth_expired" | "oauth_revoked" => "reconnect_provider" "reconnect-provider";
    "connection_error" | "certificate_invalid" => "reconnect_provider" "check-connection";
    "api_key_invalid" => "update_api_key" "update-api-key";
    "call_forbidden" => "fix_permissions" "allow-call";
    "payment_required" => "add_credits" "add-credits";
    "api_not_found" => "reconnect_provider" "check-provider-address";
    "template_not_found" | "template_not_selected" => "select_template" "select-template";
    "template_invalid_tags" => "fix_template_tags" "fix-template-tags";
    "rate_limit" | "timeout" | "service_unavailable" | "stopped" => "retry" "retry";
    "no_signers" | "signer_missing_email" | "duplicate_signer" => "fix_signers" "fix-signers";
    "invalid_signer_name" | "invalid_signer_order" => "fix_signers" "fix-signers";
    "unknown_field" | "too_many" => "fix_field_format" "fix-field-format";

    // Further codes of docg, besides those.
    "template.large_file" => "reduce_template" "reduce-template";
    "render_too_large" => "reduce_data" "reduce-data";
    "parameters_too_large" => "reduce_data" "reduce-parameters";
    "check_failed" => "check_again" "check-again";
    "handler_panicked" => "retry" "retry";
    "unreadable" => "cancel" "cancel-unreadable";
    "too_many_interruptions" => "resume" "resume-interrupted";
    "unknown_node_type" | "wrong_phase" => "edit_workflow" "edit-workflow";
    "invalid_condition" => "fix_condition" "fix-condition";
    "review_rejected" | "review_expired" | "canceled" | "made_from_earlier_data" => "retry" "start-again";
    "approval_rejected" => "retry" "ask-approval-again";
    "event_expired" => "retry" "wait-again";
    "approval_expired" => "retry" "ask-approval-again";
    "duplicate_approver" | "invalid_quorum" => "fix_approvers" "fix-approvers";
    "signature_declined" => "contact_signers" "contact-signers";
    "signature_expired" => "retry" "ask-signatures-again";
    "signature_canceled" => "retry" "ask-signatures-again";
    "signature_request_refused" => "fix_signers" "fix-signature-request";
    "document_not_ready" | "error" => "retry" "retry";
    "output_too_large" | "total_output_too_large" => "reduce_output" "reduce-output";
    "output_not_storable" | "request_name_taken" => "fix_output" "fix-output";

    // Common codes of handlers for files, mail and calls.
    "storage_full" => "free_storage" "free-storage";
    "storage_misconfigured" => "fix_storage" "fix-storage";
    "storage_error" | "network_error" | "smtp_unavailable" => "retry" "retry";
    "smtp_refused" | "recipient_refused" => "fix_recipients" "fix-recipients";
    "smtp_auth_failed" | "smtp_sender_refused" => "reconnect_provider" "ask-for-mail-settings";
    "smtp_quota" => "retry" "retry";
    "mail_too_large" => "reduce_attachments" "reduce-attachments";
    "mail_refused" => "fix_mail" "fix-mail";
    "answer_not_text" => "fix_answer" "fix-answer";
    "url_not_allowed" | "host_not_found" | "redirect_not_followed" => "fix_url" "fix-url";
}

/// The two actions for an unknown outcome.
pub(super) fn outcome_unknown() -> [ActionTemplate; 2] {
    [
        template!("confirm_done", "confirm-done"),
        template!("run_again", "run-again"),
    ]
}

/// The action for an execution that is ready and waits for a person's confirmation.
pub(super) fn confirm_delivery() -> ActionTemplate {
    template!("confirm_delivery", "confirm-delivery")
}

/// The action for an execution that failed outside of its steps, with an unknown code.
pub(super) fn retry() -> ActionTemplate {
    template!("retry", "retry")
}

/// The action for an execution that waits for a review without an error.
pub(super) fn resume() -> ActionTemplate {
    template!("resume", "resume")
}

/// The action for an unknown code, by domain.
pub(super) fn for_domain(domain: Domain) -> ActionTemplate {
    match domain {
        Domain::Data => template!("review_data", "review-data"),
        Domain::Template => template!("review_template", "review-template"),
        Domain::Permissions => template!("review_permissions", "review-permissions"),
        Domain::Delivery => template!("review_delivery", "review-delivery"),
        Domain::Signature => template!("review_signature", "review-signature"),
    }
}
