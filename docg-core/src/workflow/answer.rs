//! Checks the answers of handlers before anything else uses them, and rejects those that cannot be stored.
//!
//! If the store refused an answer, the step would run again. So the answer is checked here, in the handler's
//! own task. A rejected answer is dismantled at once: if it is nested too deep, dropping it overflows the
//! stack.

use std::{collections::HashSet, sync::Arc};

use serde::Serialize;
use serde_json::Value;

use super::{
    Node, Probe, StepOutcome, Wait,
    handler::{NewApproval, NewEventWait},
};
use crate::{
    address::{Address, AddressKey},
    error::{ErrorContext, FailureClass, StepFailure, codes},
    i18n::{Locale, Text},
    limits,
    observe::{ExecutionLogger, LogDraft, LogLevel, Redaction, StepRecorder},
    run::{Phase, Step},
    signature::{NewSignatureRequest, SignatureProvider},
    storable::{self, MAX_DEPTH, Unstorable},
    time::{MAX_DURATION_MS, Timestamp},
};

/// The failure for a rejected answer. The handler's effect may have happened all the same, so the outcome is
/// unknown unless the effect is safe to repeat.
pub(crate) fn failure(
    context: ErrorContext,
    mut class: FailureClass,
    repeatable: bool,
) -> StepFailure {
    if !repeatable {
        class = FailureClass::AnswerRefused;
    }
    StepFailure {
        class,
        context,
        retry_after_ms: None,
    }
}

/// The limits on a step's output.
pub(crate) struct OutputRoom {
    most: usize,
    most_in_total: usize,
    /// The outputs of the other steps.
    others: Vec<Arc<Value>>,
}

impl OutputRoom {
    /// The limits in bytes of JSON: `most` for the step at `index`, and `most_in_total` for all steps.
    pub(crate) fn new(most: usize, most_in_total: usize, steps: &[Step], index: usize) -> Self {
        let others = steps
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != index);
        Self {
            most,
            most_in_total,
            others: others.filter_map(|(_, step)| step.output.clone()).collect(),
        }
    }

    /// True if the step may have this output.
    pub(crate) fn holds(&self, output: &Value) -> bool {
        fits(output, self.most) && self.holds_beside_others(output)
    }

    fn holds_beside_others(&self, output: &Value) -> bool {
        let others = self.others.iter().map(|other| &**other);
        let mut all = others.chain([output]);
        all.try_fold(self.most_in_total, left_after).is_some()
    }
}

/// Checks the answers of one handler.
pub(crate) struct Keeper {
    pub(crate) node: Arc<Node>,
    /// True if the handler's effect is safe to repeat.
    pub(crate) repeatable: bool,
    pub(crate) room: OutputRoom,
    pub(crate) started_at: Timestamp,
    pub(crate) recorder: StepRecorder,
    pub(crate) redaction: Redaction,
    pub(crate) providers: Arc<[Arc<dyn SignatureProvider>]>,
}

impl Keeper {
    /// The handler's result, or the failure that replaces a result that cannot be stored.
    pub(crate) fn result(
        &self,
        result: Result<StepOutcome, StepFailure>,
    ) -> Result<StepOutcome, StepFailure> {
        let refused = match result {
            Ok(outcome @ StepOutcome::Done(_)) => self
                .checked(outcome)
                .map_err(|refused| (refused, FailureClass::Final)),
            // A rejected wait is for review: a person can correct the parameters that led to it.
            Ok(outcome @ StepOutcome::Wait(_)) => self
                .not_over(outcome)
                .and_then(|outcome| self.checked(outcome))
                .map_err(|refused| (refused, FailureClass::Review)),
            Err(failure) => return Err(failure.printable(&self.redaction)),
        };
        refused.map_err(|(context, class)| {
            failure(context, class, self.repeatable).printable(&self.redaction)
        })
    }

    /// The probe's answer. If it cannot be stored, the outcome is unknown and a person decides.
    pub(crate) fn probe(&self, effect: Probe) -> Probe {
        let outcome = match effect {
            Probe::Done(output) => StepOutcome::Done(output),
            Probe::Begun(wait) => StepOutcome::Wait(wait),
            Probe::NotDone | Probe::Unknown => return effect,
        };
        match self.checked(outcome) {
            Ok(StepOutcome::Done(output)) => Probe::Done(output),
            Ok(StepOutcome::Wait(wait)) => Probe::Begun(wait),
            Err(refused) => {
                let mut log = LogDraft::new(LogLevel::Warn, refused.human);
                log.message_tech = refused.tech;
                self.recorder.log(log);
                Probe::Unknown
            }
        }
    }

    /// Logs that the handler held its thread past its deadline.
    pub(crate) fn warn_of_blocking(&self) {
        let text = self.text("log-step-blocked");
        self.recorder.log(LogDraft::new(LogLevel::Warn, text));
    }

    /// Warns that only the application can report on a request, because its provider is unknown.
    fn warn_of_unknown_provider(&self, name: &str) {
        let known: Vec<_> = self.providers.iter().map(|it| it.name()).collect();
        if !known.contains(&name) {
            let text = self.text("log-provider-unknown").with("provider", name);
            let tech = format!("known providers: [{}]", known.join(", "));
            self.recorder
                .log(LogDraft::new(LogLevel::Warn, text).tech(tech));
        }
    }

    /// Rejects a wait whose end has passed when it begins, because nobody could decide in time. A wait that a
    /// probe finds is not checked for this: its end may have passed since.
    fn not_over(&self, outcome: StepOutcome) -> Result<StepOutcome, ErrorContext> {
        let end = match &outcome {
            StepOutcome::Wait(Wait::Approval(request)) => request.expires_at,
            StepOutcome::Wait(Wait::Signatures(request)) => request.expires_at,
            StepOutcome::Wait(Wait::Event(wait)) => wait.expires_at,
            // A moment that has passed does not delay the step.
            StepOutcome::Wait(Wait::Until(_)) | StepOutcome::Done(_) => None,
        };
        let now = self.started_at;
        match end {
            Some(end) if end <= now => {
                let tech = format!("it ends at {end}, not after the start of the step at {now}");
                let text = self.text("error-wait-over");
                Err(refusal(codes::OUTPUT_NOT_STORABLE, text, &tech))
            }
            _ => Ok(outcome),
        }
    }

    fn checked(&self, outcome: StepOutcome) -> Result<StepOutcome, ErrorContext> {
        let refused = match &outcome {
            StepOutcome::Done(output) => self.refused_output(output),
            StepOutcome::Wait(Wait::Approval(request)) => self.refused_approval(request),
            StepOutcome::Wait(Wait::Signatures(request)) => self.refused_signatures(request),
            StepOutcome::Wait(Wait::Until(moment)) => self.refused_wait(0, Some(*moment), None),
            StepOutcome::Wait(Wait::Event(wait)) => self.refused_event(wait),
        };
        let Some(refused) = refused else {
            if let StepOutcome::Wait(Wait::Signatures(request)) = &outcome {
                self.warn_of_unknown_provider(&request.provider);
            }
            return Ok(outcome);
        };
        match outcome {
            StepOutcome::Done(output) => storable::dismantle(output),
            StepOutcome::Wait(Wait::Signatures(request)) => {
                storable::dismantle(request.file);
                storable::dismantle(request.details);
            }
            StepOutcome::Wait(Wait::Approval(_) | Wait::Until(_) | Wait::Event(_)) => {}
        }
        Err(refused)
    }

    fn refused_approval(&self, request: &NewApproval) -> Option<ErrorContext> {
        let approvers = &request.approvers;
        let message = request.message.as_deref().unwrap_or_default();
        if let Some(fault) = limits::MESSAGE.fault("/message", message) {
            let text = self
                .text("error-wait-message")
                .with_text("why", fault.detail.clone());
            let tech = format!("its message: {}", fault.detail.render(Locale::En));
            return Some(refusal(codes::OUTPUT_NOT_STORABLE, text, &tech));
        }
        let refused = self.refused_wait(approvers.len(), request.expires_at, None);
        if refused.is_some() {
            return refused;
        }
        let people: HashSet<_> = approvers
            .iter()
            .map(|(email, _)| AddressKey::of(email))
            .collect();
        if request.quorum == 0 || request.quorum as usize > people.len() {
            let (quorum, count) = (request.quorum, people.len());
            let text = self
                .text("error-wait-quorum")
                .with("quorum", quorum)
                .with("count", count);
            let tech = format!("a quorum of {quorum} cannot be reached by {count} approvers");
            return Some(refusal(codes::INVALID_QUORUM, text, &tech));
        }
        let emails: Vec<&str> = approvers.iter().map(|(email, _)| &**email).collect();
        let refused = self.refused_people(&emails, codes::DUPLICATE_APPROVER);
        if refused.is_some() {
            return refused;
        }
        let tokens: HashSet<_> = approvers.iter().map(|(_, token)| token).collect();
        if tokens.len() < approvers.len() {
            let text = self.text("error-wait-tokens");
            let tech = "two approvers have the same token: their links cannot be told apart";
            return Some(refusal(codes::OUTPUT_NOT_STORABLE, text, tech));
        }
        self.refused_value(&emails, &[])
    }

    fn refused_event(&self, wait: &NewEventWait) -> Option<ErrorContext> {
        let key = wait.key.as_deref();
        let mut faults = limits::EVENT_NAME
            .fault("/name", &wait.name)
            .into_iter()
            .chain(key.and_then(|key| limits::EVENT_KEY.fault("/key", key)));
        if let Some(fault) = faults.next() {
            let text = self
                .text("error-wait-event")
                .with_text("why", fault.detail.clone());
            let tech = format!("its event: {}", fault.detail.render(Locale::En));
            return Some(refusal(codes::OUTPUT_NOT_STORABLE, text, &tech));
        }
        self.refused_wait(0, wait.expires_at, None)
    }

    fn refused_signatures(&self, request: &NewSignatureRequest) -> Option<ErrorContext> {
        let people = request.signers.len();
        let refused = self
            .refused_wait(people, request.expires_at, request.remind_every_ms)
            .or_else(|| self.refused_value(request, &[&request.file, &request.details]));
        if refused.is_some() {
            return refused;
        }
        if self.node.phase != Phase::Signature {
            let text = self.text("error-wait-phase");
            let tech = "signatures can be awaited by a node of the signature phase only";
            return Some(refusal(codes::WRONG_PHASE, text, tech));
        }
        if people == 0 {
            let text = self.text("error-wait-nobody");
            return Some(refusal(codes::NO_SIGNERS, text, "it names no signer"));
        }
        if let Some(fault) = limits::PROVIDER.fault("/provider", &request.provider) {
            let text = self
                .text("error-wait-provider")
                .with_text("why", fault.detail.clone());
            let tech = format!("its provider: {}", fault.detail.render(Locale::En));
            return Some(refusal(codes::OUTPUT_NOT_STORABLE, text, &tech));
        }
        if limits::is_blank(&request.envelope_id) {
            let text = self.text("error-wait-envelope");
            let tech = "its envelope id is blank: no report could be told to be about it";
            return Some(refusal(codes::OUTPUT_NOT_STORABLE, text, tech));
        }
        let emails: Vec<&str> = request.signers.iter().map(|it| &*it.email).collect();
        self.refused_people(&emails, codes::DUPLICATE_SIGNER)
    }

    /// Why these people cannot be asked, or `None`. Each needs a valid address and may be named only once.
    /// `twice` is the code for a person named twice.
    fn refused_people(&self, emails: &[&str], twice: &'static str) -> Option<ErrorContext> {
        let mut seen = HashSet::new();
        emails.iter().find_map(|email| {
            let (code, key, tech) = match email.parse::<Address>() {
                Err(error) => {
                    let tech = format!("{email:?} is not an address: {error}");
                    (codes::INVALID_EMAIL_FORMAT, "error-wait-address", tech)
                }
                Ok(address) if !seen.insert(address.key()) => {
                    (twice, "error-wait-twice", format!("it names {email} twice"))
                }
                Ok(_) => return None,
            };
            Some(refusal(code, self.text(key).with("email", *email), &tech))
        })
    }

    /// Why the wait's people, end or reminders are rejected, or `None`.
    fn refused_wait(
        &self,
        people: usize,
        expires_at: Option<Timestamp>,
        remind_every_ms: Option<u64>,
    ) -> Option<ErrorContext> {
        let (text, tech) = if people > limits::PEOPLE {
            let text = self.text("error-wait-people").with("count", people);
            let tech = format!("it asks {people} people, of at most {}", limits::PEOPLE);
            (text.with("most", limits::PEOPLE), tech)
        } else if expires_at.is_some_and(|end| !end.is_within_reach_of(self.started_at)) {
            let tech = "it ends more than ten years ahead".to_owned();
            (self.text("error-wait-end"), tech)
        } else if remind_every_ms.is_some_and(|millis| millis > MAX_DURATION_MS) {
            let tech = "more than ten years lie between its reminders".to_owned();
            (self.text("error-wait-reminders"), tech)
        } else {
            return None;
        };
        Some(refusal(codes::OUTPUT_NOT_STORABLE, text, &tech))
    }

    fn refused_output(&self, output: &Value) -> Option<ErrorContext> {
        let refused = self.refused_value(output, &[output]);
        refused.or_else(|| {
            (!self.room.holds_beside_others(output)).then(|| {
                let text = self.text("error-total-output-too-large");
                let most = self.room.most_in_total;
                let tech = format!("the outputs of the execution exceed {most} bytes of JSON");
                refusal(codes::TOTAL_OUTPUT_TOO_LARGE, text, &tech)
            })
        })
    }

    /// Why a value cannot be stored, or `None`. `parts` are the value's parts whose size nothing bounds yet.
    fn refused_value(&self, value: &impl Serialize, parts: &[&Value]) -> Option<ErrorContext> {
        let most = self.room.most;
        let too_large = || {
            let text = self.text("error-output-too-large");
            let tech = format!("it exceeds {most} bytes of JSON");
            Some(refusal(codes::OUTPUT_TOO_LARGE, text, &tech))
        };
        // Check the size first, before anything walks the whole value.
        if parts.iter().any(|part| storable::is_far_longer(part, most)) {
            return too_large();
        }
        if let Some(fault) = Unstorable::of_record(value, MAX_DEPTH) {
            let text = self.text("error-output-not-storable");
            let tech = format!("{fault}; {MAX_DEPTH} levels may be nested");
            return Some(refusal(codes::OUTPUT_NOT_STORABLE, text, &tech));
        }
        if fits(value, most) { None } else { too_large() }
    }

    fn text(&self, key: &'static str) -> Text {
        Text::key(key).with("label", &self.node.label)
    }
}

pub(crate) fn refusal(code: &'static str, human: Text, why: &str) -> ErrorContext {
    ErrorContext {
        code: code.into(),
        human,
        tech: Some(format!("the answer cannot be kept: {why}")),
    }
}

/// True if a value's JSON has at most `max` bytes.
fn fits(value: &impl Serialize, max: usize) -> bool {
    left_after(max, value).is_some()
}

/// The bytes that remain of `room` after a value's JSON, or `None` if the JSON is longer. Nothing is stored.
fn left_after(room: usize, value: &impl Serialize) -> Option<usize> {
    struct Budget(usize);
    impl std::io::Write for Budget {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self
                .0
                .checked_sub(bytes.len())
                .ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut budget = Budget(room);
    serde_json::to_writer(&mut budget, value).ok()?;
    Some(budget.0)
}
