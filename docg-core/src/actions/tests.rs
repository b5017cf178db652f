use std::{collections::BTreeSet, sync::Arc};

use super::*;
use crate::{
    preflight::PreflightSummary,
    run::{CurrentStep, Outcome, StepState, WaitingFor},
    time::Timestamp,
    workflow::variables::tests::{execution, step},
};

fn issue(code: &'static str, domain: Domain) -> Issue {
    Issue::blocking(domain, code, "text")
}

fn error(code: &'static str) -> ErrorContext {
    ErrorContext {
        code: code.into(),
        human: "text".into(),
        tech: None,
    }
}

fn names(actions: &[RecommendedAction]) -> Vec<&str> {
    actions.iter().map(|action| &*action.action).collect()
}

#[test]
fn the_table_is_that_of_the_contract() {
    let catalogue = ActionCatalogue::default();
    for (code, action, label) in [
        (
            "drive.insufficient_permissions",
            "fix_permissions",
            "Corrigir permissões",
        ),
        (
            "onedrive.insufficient_permissions",
            "fix_permissions",
            "Corrigir permissões",
        ),
        (
            "drive.folder_not_found",
            "select_folder",
            "Selecionar pasta",
        ),
        ("unresolved_variables", "map_fields", "Mapear campos"),
        (
            "missing_required_field",
            "fill_required",
            "Preencher campos",
        ),
        (
            "invalid_field_format",
            "fix_field_format",
            "Corrigir formato",
        ),
        ("oauth_expired", "reconnect_provider", "Reconectar"),
        ("oauth_revoked", "reconnect_provider", "Reconectar"),
        (
            "connection_error",
            "reconnect_provider",
            "Verificar conexão",
        ),
        ("api_key_invalid", "update_api_key", "Atualizar API Key"),
        (
            "template_not_found",
            "select_template",
            "Selecionar template",
        ),
        (
            "template_not_selected",
            "select_template",
            "Selecionar template",
        ),
        (
            "template_invalid_tags",
            "fix_template_tags",
            "Corrigir tags",
        ),
        ("rate_limit", "retry", "Tentar novamente"),
        ("timeout", "retry", "Tentar novamente"),
        ("service_unavailable", "retry", "Tentar novamente"),
        ("missing_recipient", "fill_required", "Preencher campos"),
        ("no_signers", "fix_signers", "Corrigir signatários"),
        (
            "signer_missing_email",
            "fix_signers",
            "Corrigir signatários",
        ),
        ("duplicate_signer", "fix_signers", "Corrigir signatários"),
    ] {
        let found = catalogue.for_issue(&issue(code, Domain::Data));
        assert_eq!(
            (&*found.action, found.label.render(Locale::PtBr)),
            (action, label.to_owned()),
            "{code}"
        );
        assert_eq!(found.params["issue_code"], code);
    }
}

#[test]
fn every_action_has_a_label_and_a_description_in_both_languages() {
    let templates = table::entries()
        .into_iter()
        .map(|(_, template)| template)
        .chain(table::outcome_unknown())
        .chain([table::confirm_delivery(), table::retry(), table::resume()])
        .chain(Domain::ALL.map(table::for_domain));
    for template in templates {
        for text in [&template.label, &template.description] {
            let Text::Key { key, .. } = text else {
                panic!("{text:?} has no key")
            };
            for locale in Locale::ALL {
                assert!(
                    crate::i18n::message(locale, key, &[]).is_some(),
                    "{key} is missing in {}",
                    locale.tag()
                );
            }
        }
    }
}

#[test]
fn every_code_of_docg_has_an_action_of_its_own() {
    let catalogue = ActionCatalogue::default();
    let without: Vec<_> = codes::ALL
        .iter()
        .filter(|code| catalogue.find(code).is_none())
        .collect();
    assert!(without.is_empty(), "{without:?}");
    let listed = table::entries();
    let unique: BTreeSet<_> = listed.iter().map(|(code, _)| code).collect();
    assert_eq!(unique.len(), listed.len(), "a code is listed twice");
}

#[test]
fn an_exact_code_comes_before_the_longest_part_after_a_provider_and_that_before_the_domain() {
    let mut catalogue = ActionCatalogue::default();
    catalogue.register(
        "drive.quota",
        ActionTemplate::new("exact", "Exact", "Exactly this"),
    );
    catalogue.register("quota", ActionTemplate::new("part", "Part", "Part of it"));
    for (code, expected) in [
        ("drive.quota", "exact"),
        ("google.drive.quota", "exact"),
        ("box.quota", "part"),
        ("quota", "part"),
        ("onedrive.folder_not_found", "select_folder"),
        ("a.b.c.oauth_expired", "reconnect_provider"),
        ("smtp.timeout", "retry"),
        ("my_quota", "review_delivery"),
        ("quota.other", "review_delivery"),
        ("", "review_delivery"),
        (".", "review_delivery"),
    ] {
        assert_eq!(
            catalogue.for_issue(&issue(code, Domain::Delivery)).action,
            expected,
            "{code}"
        );
    }
}

#[test]
fn an_application_can_replace_what_docg_recommends() {
    let mut catalogue = ActionCatalogue::default();
    catalogue.register(
        "timeout",
        ActionTemplate::new("call_desk", "Call the desk", "They know."),
    );
    let found = catalogue.for_error(&error("timeout"), Domain::Data, None);
    assert_eq!(names(&found), ["call_desk"]);
    assert_eq!(found[0].for_reader(Locale::PtBr)["label"], "Call the desk");
}

#[test]
fn nothing_is_ever_without_an_action() {
    let catalogue = ActionCatalogue::default();
    for domain in Domain::ALL {
        assert!(
            !catalogue
                .for_issue(&issue("acme.odd", domain))
                .action
                .is_empty()
        );
        assert_eq!(
            catalogue.for_error(&error("acme.odd"), domain, None).len(),
            1
        );
    }
    for status in [Status::NeedsReview, Status::Failed] {
        let mut execution = execution();
        execution.status = status;
        assert_eq!(
            catalogue.for_execution(&execution, &[]).len(),
            1,
            "{status}"
        );
        execution.error = Some(error("acme.odd"));
        assert_eq!(
            catalogue.for_execution(&execution, &[]).len(),
            1,
            "{status}"
        );
    }
}

#[test]
fn issues_of_one_node_that_need_the_same_are_one_action() {
    let issues = [
        issue("missing_required_field", Domain::Data).field("trigger.a"),
        issue("missing_required_field", Domain::Data).field("trigger.b"),
        issue("missing_required_field", Domain::Data).field("trigger.a"),
        issue("missing_recipient", Domain::Delivery)
            .at("mail")
            .field("to"),
        issue("no_signers", Domain::Signature).at("sign"),
        Issue::warning(Domain::Template, "template.large_file", "large"),
    ];
    let mut execution = execution();
    execution.status = Status::NeedsReview;
    execution.preflight = Some(Arc::new(PreflightSummary::new(
        issues.to_vec(),
        Timestamp::from_millis(0),
    )));
    let actions = ActionCatalogue::default().for_execution(&execution, &[]);
    let wire: Vec<_> = actions
        .iter()
        .map(|action| action.for_reader(Locale::En))
        .collect();
    let summary: Vec<_> = wire
        .iter()
        .map(|a| {
            (
                a["action"].clone(),
                a["target_node_id"].clone(),
                a["params"].clone(),
            )
        })
        .collect();
    assert_eq!(
        summary,
        [
            (
                json!("fill_required"),
                json!(null),
                json!({"issue_code": "missing_required_field", "fields": ["trigger.a", "trigger.b"]})
            ),
            (
                json!("fill_required"),
                json!("mail"),
                json!({"issue_code": "missing_recipient", "fields": ["to"]})
            ),
            (
                json!("fix_signers"),
                json!("sign"),
                json!({"issue_code": "no_signers"})
            ),
        ]
    );
    assert_eq!(wire[0]["label"], "Fill in fields");
    assert!(wire[0]["description"].is_string());
}

/// An execution stopped by a failed step.
fn stopped(status: Status, code: &'static str) -> (Execution, Vec<Step>) {
    let mut execution = execution();
    execution.status = status;
    let mut failed = step("mail", 1, None);
    failed.state = StepState::Failed(Outcome::Known);
    failed.phase = Phase::Delivery;
    failed.error = Some(error(code));
    execution.error = failed.error.clone();
    execution.current_step = Some(Arc::new(CurrentStep {
        index: 1,
        label: "Mail".into(),
        node_id: "mail".into(),
        node_type: "any".into(),
    }));
    (execution, vec![step("first", 0, Some(json!({}))), failed])
}

#[test]
fn a_failed_step_gives_the_action_for_its_error_and_names_its_node() {
    let catalogue = ActionCatalogue::default();
    for (status, code, expected) in [
        (Status::NeedsReview, "smtp_refused", "fix_recipients"),
        (Status::NeedsReview, "acme.odd", "review_delivery"),
        (Status::NeedsReview, "unresolved_variables", "map_fields"),
        (Status::Failed, "acme.odd", "review_delivery"),
        (Status::Failed, "handler_panicked", "retry"),
        (Status::Failed, "drive.storage_full", "free_storage"),
        (Status::Failed, "signature_declined", "contact_signers"),
    ] {
        let (execution, steps) = stopped(status, code);
        let actions = catalogue.for_execution(&execution, &steps);
        assert_eq!(names(&actions), [expected], "{code}");
        assert_eq!(actions[0].target_node_id, Some("mail".into()));
        assert_eq!(actions[0].params["issue_code"], code);
    }
}

#[test]
fn an_unknown_outcome_can_be_confirmed_or_run_again() {
    for code in [codes::OUTCOME_UNKNOWN, codes::TOO_MANY_TAKEOVERS] {
        let (execution, steps) = stopped(Status::NeedsReview, code);
        let actions = ActionCatalogue::default().for_execution(&execution, &steps);
        assert_eq!(names(&actions), ["confirm_done", "run_again"]);
        assert!(actions.iter().all(|it| it.params["issue_code"] == code));
    }
}

#[test]
fn a_step_that_was_left_behind_has_an_action_in_every_status() {
    let catalogue = ActionCatalogue::default();
    for status in Status::ALL {
        let (mut execution, mut steps) = stopped(status, "smtp_refused");
        let mut left = step("left", 0, None);
        left.state = StepState::Failed(Outcome::Known);
        left.error = Some(error("storage_full"));
        steps[0] = left;
        let actions = catalogue.for_execution(&execution, &steps);
        let mut found = names(&actions);
        found.sort_unstable();
        if status == Status::Canceled {
            assert!(
                found.is_empty(),
                "nobody needs to act on a canceled execution"
            );
            continue;
        }
        assert_eq!(found, ["fix_recipients", "free_storage"], "{status}");
        execution.error = Some(error("review_rejected"));
        if status == Status::Failed {
            let actions = catalogue.for_execution(&execution, &steps);
            assert_eq!(names(&actions), ["retry", "free_storage"]);
        }
    }
}

#[test]
fn issues_of_one_node_with_different_codes_are_different_actions() {
    let issues = [
        issue("signer_missing_email", Domain::Signature).at("sign"),
        issue("duplicate_signer", Domain::Signature).at("sign"),
    ];
    let actions = ActionCatalogue::default().for_issues(&issues);
    let codes: Vec<_> = actions.iter().map(|it| &it.params["issue_code"]).collect();
    assert_eq!(codes, ["signer_missing_email", "duplicate_signer"]);
}

#[test]
fn an_execution_that_awaits_confirmation_can_be_confirmed() {
    let mut execution = execution();
    execution.status = Status::Ready;
    execution.waiting_for = Some(WaitingFor {
        kind: WaitKind::Confirmation,
        since: Timestamp::from_millis(0),
        until: None,
        detail: Value::Null,
    });
    assert_eq!(
        names(&ActionCatalogue::default().for_execution(&execution, &[])),
        ["confirm_delivery"]
    );
}

#[test]
fn where_nobody_needs_to_do_anything_nothing_is_recommended() {
    for status in Status::ALL {
        if !matches!(status, Status::NeedsReview | Status::Failed) {
            let mut execution = execution();
            execution.status = status;
            execution.error = Some(error("timeout"));
            assert_eq!(
                ActionCatalogue::default().for_execution(&execution, &[]),
                [],
                "{status}"
            );
        }
    }
}
