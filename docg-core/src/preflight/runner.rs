use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};

use super::{
    Domain, Issue, ProbeFailure, ResourceProbe, Severity,
    rules::{self, Answer, Check, Question, Resource},
};
use crate::{
    ids::OrganizationId,
    limits,
    observe::Redaction,
    programs,
    run::{Inputs, Phase, Step},
    workflow::{Handler, Node, Registry, Workflow, handler::CheckRequest, validate::schema},
};

/// The limits of preflight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreflightLimits {
    /// The timeout of one check: a question about a resource, or a handler's own check.
    pub check_timeout: Duration,
    /// The largest number of checks, of resources or by handlers, that run at once.
    pub parallelism: usize,
    /// The size in bytes from which a template gets the warning `template.large_file`.
    pub large_template_bytes: u64,
}

impl Default for PreflightLimits {
    fn default() -> Self {
        Self {
            check_timeout: Duration::from_secs(5),
            parallelism: 8,
            large_template_bytes: 5 * 1024 * 1024,
        }
    }
}

/// The input of a preflight.
#[derive(Clone, Copy)]
pub struct PreflightRequest<'a> {
    /// The organization (tenant) of the execution.
    pub organization_id: OrganizationId,
    /// The definition to check.
    pub workflow: &'a Workflow,
    /// The execution's input data.
    pub inputs: &'a Inputs,
    /// The registered node types.
    pub registry: &'a Registry,
    /// The probe that reaches templates, folders and connections.
    pub probe: &'a Arc<dyn ResourceProbe>,
    /// The limits of preflight.
    pub limits: &'a PreflightLimits,
    /// The execution's steps; empty for a new execution. Preflight does not check steps that succeeded, were
    /// skipped, or failed with `on_error: continue`. The other nodes may read the outputs of steps that
    /// succeeded.
    pub steps: &'a [Step],
    /// True for a dry run, which skips saving, delivery and signature. Preflight checks the nodes of these
    /// phases all the same.
    pub dry_run: bool,
    /// The last phase that will run. Nodes of later phases are not checked.
    pub until_phase: Option<Phase>,
}

impl std::fmt::Debug for PreflightRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PreflightRequest")
            .field("organization_id", &self.organization_id)
            .field("workflow", &self.workflow.id)
            .field("dry_run", &self.dry_run)
            .field("until_phase", &self.until_phase)
            .finish_non_exhaustive()
    }
}

/// Checks everything that can be known before an effect. Never fails: if a check cannot be made, preflight
/// reports a warning `<domain>.check_failed`. Issues come in the order of the nodes.
///
/// Needs a tokio runtime with time enabled if the workflow has resources or handlers to ask.
pub async fn run(request: PreflightRequest<'_>) -> Vec<Issue> {
    let rules::Findings {
        mut issues,
        questions,
        checks,
        ..
    } = findings(&request).await;
    let checks = checks.into_iter().filter_map(|check| {
        let node = request.workflow.nodes.get(check.place - 1)?;
        let handler = request.registry.get(&node.node_type)?;
        Some(Job::Check(node, handler, check))
    });
    let jobs = questions.into_iter().map(Job::Ask).chain(checks);
    let mut answers = limited(
        jobs.map(|job| job.run(&request)),
        request.limits.parallelism,
    )
    .await;
    // Answers arrive in any order. Sort them, so that the order of issues does not depend on timing.
    answers.sort_by_key(|(order, _)| *order);
    let found = answers.into_iter().flat_map(|(_, found)| found);
    let mut found: Placed = found
        .map(|(place, issue)| (place, issue.with_whole_field()))
        .collect();
    // Drop an issue of a provider or handler if a rule reported the same code, field and node.
    found.retain(|(place, issue)| {
        !issues
            .iter()
            .any(|(other, known)| place == other && is_same(issue, known))
    });
    issues.append(&mut found);
    issues.sort_by_key(|(place, _)| *place);
    let issues = issues.into_iter();
    let redaction = Redaction::default();
    issues
        .map(|(_, issue)| issue.with_whole_field().printable(&redaction))
        .collect()
}

/// Applies the rules: on this thread if the request is small, else on the threads for tenants' programs.
async fn findings(request: &PreflightRequest<'_>) -> rules::Findings {
    if is_small(request) {
        return rules::apply(request);
    }
    let owned = Owned {
        workflow: request.workflow.clone(),
        inputs: request.inputs.clone(),
        registry: request.registry.clone(),
        probe: Arc::clone(request.probe),
        limits: request.limits.clone(),
        steps: request.steps.to_vec(),
        dry_run: request.dry_run,
        until_phase: request.until_phase,
    };
    let organization_id = request.organization_id;
    let apply = move || rules::apply(&owned.request(organization_id));
    Box::pin(programs::run(organization_id, apply)).await
}

fn is_small(request: &PreflightRequest<'_>) -> bool {
    let outputs = request
        .steps
        .iter()
        .filter_map(|step| step.output.as_deref());
    let trigger = &*request.inputs.trigger_data;
    let nodes = request.workflow.nodes.iter().map(|node| &**node);
    schema::is_small(request.workflow, trigger)
        && programs::is_small(
            outputs.chain([trigger]),
            nodes,
            &request.inputs.node_overrides,
        )
}

/// An owned copy of a [`PreflightRequest`], which can be sent to another thread.
struct Owned {
    workflow: Workflow,
    inputs: Inputs,
    registry: Registry,
    probe: Arc<dyn ResourceProbe>,
    limits: PreflightLimits,
    steps: Vec<Step>,
    dry_run: bool,
    until_phase: Option<Phase>,
}

impl Owned {
    fn request(&self, organization_id: OrganizationId) -> PreflightRequest<'_> {
        PreflightRequest {
            organization_id,
            workflow: &self.workflow,
            inputs: &self.inputs,
            registry: &self.registry,
            probe: &self.probe,
            limits: &self.limits,
            steps: &self.steps,
            dry_run: self.dry_run,
            until_phase: self.until_phase,
        }
    }
}

fn is_same(issue: &Issue, known: &Issue) -> bool {
    issue.code == known.code && issue.field == known.field && issue.node_id == known.node_id
}

/// A check that may take time: a question to a provider, or a handler's own check.
enum Job<'a> {
    Ask(Question),
    Check(&'a Node, &'a Handler, Check),
}

type Placed = Vec<(usize, Issue)>;

impl<'a> Job<'a> {
    fn run(self, request: &PreflightRequest<'a>) -> BoxFuture<'a, Placed> {
        let request = *request;
        match self {
            Self::Ask(question) => async move { ask(&question, &request).await }.boxed(),
            Self::Check(node, handler, check) => async move {
                let place = check.place;
                check_node(node, handler, check, &request)
                    .await
                    .into_iter()
                    .map(|issue| (place, issue))
                    .collect()
            }
            .boxed(),
        }
    }
}

/// Runs jobs, at most `parallelism` at once. Returns each result with the index of its job.
async fn limited<'a>(
    jobs: impl Iterator<Item = BoxFuture<'a, Placed>>,
    parallelism: usize,
) -> Vec<(usize, Placed)> {
    let mut done = Vec::new();
    let mut under_way = FuturesUnordered::new();
    for (order, mut job) in jobs.enumerate() {
        if under_way.len() >= parallelism.max(1) {
            done.extend(under_way.next().await);
        }
        // Poll the job once here: most handlers have nothing to check and answer at once.
        match futures::poll!(&mut job) {
            std::task::Poll::Ready(found) => done.push((order, found)),
            std::task::Poll::Pending => under_way.push(job.map(move |found| (order, found))),
        }
    }
    while let Some(found) = under_way.next().await {
        done.push(found);
    }
    done
}

/// Runs a check that may hang or panic. A timeout and a panic each become an error text.
async fn guarded<T>(limit: Duration, check: impl Future<Output = T>) -> Result<T, String> {
    match tokio::time::timeout(limit, AssertUnwindSafe(check).catch_unwind()).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(panic)) => Err(format!("the check panicked: {}", panic_text(&*panic))),
        Err(_) => Err(format!("no answer within {} ms", limit.as_millis())),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

async fn ask(question: &Question, request: &PreflightRequest<'_>) -> Placed {
    let (probe, organization, name) = (request.probe, request.organization_id, &question.name);
    let answer = guarded(request.limits.check_timeout, async {
        match question.resource {
            Resource::Template => probe
                .template(organization, name)
                .await
                .map(Answer::Template),
            Resource::Folder => probe
                .folder(organization, name)
                .await
                .map(|()| Answer::Fine),
            Resource::Connection => probe
                .connection(organization, name)
                .await
                .map(|()| Answer::Fine),
        }
    });
    let answer = match answer.await {
        Ok(Ok(answer)) => answer,
        Ok(Err(failure)) => Answer::Failed(failure),
        Err(why) => Answer::Failed(ProbeFailure::Unreachable(why)),
    };
    question.issues(&answer, request.limits.large_template_bytes)
}

async fn check_node(
    node: &Node,
    handler: &Handler,
    Check {
        params, unsound, ..
    }: Check,
    request: &PreflightRequest<'_>,
) -> Vec<Issue> {
    let mut asked = CheckRequest::new(
        request.organization_id,
        node.id.clone(),
        Arc::clone(&node.label),
        params,
        Arc::clone(&request.inputs.trigger_data),
    );
    asked.unsound = unsound;
    let found = guarded(request.limits.check_timeout, async {
        match handler {
            Handler::Compute(handler) => handler.check(asked).await,
            Handler::Effect(handler) => handler.check(asked).await,
        }
    });
    match found.await {
        Ok(mut issues) => {
            // If a handler reports too many issues, keep the blocking ones first.
            if issues.len() > limits::ISSUES_PER_NODE {
                issues.sort_by_key(|issue| issue.severity == Severity::Warning);
                issues.truncate(limits::ISSUES_PER_NODE);
            }
            for issue in &mut issues {
                issue.node_id.get_or_insert_with(|| node.id.clone());
            }
            issues
        }
        Err(why) => vec![rules::check_failed(
            domain_of(node.phase),
            &node.id,
            &node.label,
            &why,
        )],
    }
}

/// The subject area of a failed handler check, derived from the node's phase.
fn domain_of(phase: Phase) -> Domain {
    match phase {
        Phase::Preflight | Phase::Trigger => Domain::Data,
        Phase::Render => Domain::Template,
        Phase::Save | Phase::Delivery => Domain::Delivery,
        Phase::Signature => Domain::Signature,
    }
}
