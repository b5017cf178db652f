//! Handlers made of async functions, whose parameters and outputs are serde types.

use std::{
    any::Any, fmt, future::Future, marker::PhantomData, mem::ManuallyDrop, pin::Pin, sync::Arc,
};

use async_trait::async_trait;
use minijinja::value::{Serde, ValueKind};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    context::{EffectContext, StepContext},
    handler::{
        CheckRequest, ComputeHandler, EffectHandler, Handler, Probe, Resolution, StepOutcome,
    },
    spec::NodeSpec,
    variables::shortened,
};
use crate::{
    error::{FailureClass, StepFailure, codes},
    i18n::{Locale, Text},
    json,
    preflight::Issue,
    storable::{MAX_DEPTH, Unstorable},
};

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A compute handler from an async function.
///
/// ```
/// use docg_core::{prelude::*, workflow::compute};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Deserialize)]
/// struct Items { prices: Vec<u64> }
/// #[derive(Serialize)]
/// struct Total { total: u64 }
///
/// let spec = NodeSpec::new("sum", Phase::Trigger)
///     .param(ParamSpec::required("prices", ParamKind::Json))
///     .outputs(["total"]);
/// let handler = compute(spec, |_context, items: Items| async move {
///     Ok(Total { total: items.prices.iter().sum() })
/// });
/// ```
pub fn compute<P, O, F, Fut>(spec: NodeSpec, run: F) -> Handler
where
    P: DeserializeOwned + Send + 'static,
    O: Serialize + Send + 'static,
    F: Fn(StepContext, P) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O, StepFailure>> + Send + 'static,
{
    Handler::Compute(Arc::new(ComputeFn {
        spec,
        run,
        types: PhantomData,
    }))
}

/// An effect handler made of an async function. Refine it with [`EffectFn::probe`] and [`EffectFn::resumed`],
/// then turn it into a [`Handler`] with `into()`.
pub fn effect<P, F, Fut>(spec: NodeSpec, run: F) -> EffectFn<P>
where
    P: DeserializeOwned + Send + 'static,
    F: Fn(EffectContext, P) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<StepOutcome, StepFailure>> + Send + 'static,
{
    EffectFn {
        spec,
        run: Box::new(move |context, params| Box::pin(run(context, params))),
        resumed: Box::new(|_, _, resolution| {
            Box::pin(async move { Ok(StepOutcome::Done(output_of(resolution))) })
        }),
        probe: Box::new(|_, _| Box::pin(async { Probe::Unknown })),
    }
}

impl StepOutcome {
    /// The step is done, with an output of any serializable type.
    ///
    /// `json!` and `serde_json::to_value` silently write `null` for a float that is infinite or not a number
    /// (NaN). If `output` is a type of your own instead, such a float is refused.
    ///
    /// # Errors
    ///
    /// A failure with an unknown outcome if the output cannot be serialized: the effect has already happened.
    pub fn done(output: impl Serialize) -> Result<Self, StepFailure> {
        to_output(output).map(Self::Done).map_err(|mut failure| {
            failure.class = FailureClass::AnswerRefused;
            failure
        })
    }
}

/// The output of a step after its wait, if the handler has no `resumed` function.
fn output_of(resolution: Resolution) -> Value {
    match resolution {
        Resolution::Signed(request) => serde_json::json!({
            "signature_request_id": request.id,
            "envelope_id": request.envelope_id,
            "file": request.file,
        }),
        Resolution::Approved(decision) => decision,
        Resolution::Elapsed(until) => serde_json::json!({"until": until}),
        Resolution::Event { name, payload } => {
            serde_json::json!({"name": name, "payload": payload})
        }
    }
}

fn to_output(output: impl Serialize) -> Result<Value, StepFailure> {
    let refused = |why: &dyn fmt::Display| {
        let text = Text::key("error-output-unserializable");
        StepFailure::fatal(codes::OUTPUT_NOT_STORABLE, text).tech(why)
    };
    // If the output is nested too deeply, serializing or dropping it would overflow the stack. docg cannot
    // take an unknown type apart, so it leaks the output.
    let output = ManuallyDrop::new(output);
    if let Some(fault @ Unstorable::TooDeep) = Unstorable::of_record(&*output, MAX_DEPTH) {
        return Err(refused(&fault));
    }
    let output = ManuallyDrop::into_inner(output);
    let value = serde_json::to_value(&output).map_err(|error| refused(&error))?;
    // serde_json writes `null` for a number that JSON cannot express.
    if has_null(&value) && has_no_json_number(&minijinja::Value::from(Serde(&output))) {
        return Err(refused(&"a number in it is infinite or not a number (NaN)"));
    }
    Ok(value)
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.iter().any(has_null),
        Value::Object(fields) => fields.values().any(has_null),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// True if a number within a value is infinite or NaN.
fn has_no_json_number(value: &minijinja::Value) -> bool {
    let within =
        |keys: minijinja::value::ValueIter| keys.into_iter().any(|item| has_no_json_number(&item));
    match value.kind() {
        ValueKind::Number => f64::try_from(value.clone()).is_ok_and(|number| !number.is_finite()),
        ValueKind::Seq | ValueKind::Iterable => value.try_iter().is_ok_and(within),
        ValueKind::Map => value.try_iter().is_ok_and(|mut names| {
            names.any(|name| {
                value
                    .get_item(&name)
                    .is_ok_and(|item| has_no_json_number(&item))
            })
        }),
        _ => false,
    }
}

/// Parses a step's parameters into a handler's own type.
///
/// A handler that also calls [`CheckRequest::misfits`] in its check accepts the same parameters in both
/// calls. Handlers from [`compute`] and [`effect`] do so.
///
/// # Errors
///
/// A failure for review, with the code `invalid_field_format`.
pub fn read_params<P: DeserializeOwned>(params: Value) -> Result<P, StepFailure> {
    read(params).map_err(|misfit| {
        StepFailure::review(
            codes::INVALID_FIELD_FORMAT,
            Text::key("error-parameters-do-not-fit"),
        )
        .tech(misfit)
    })
}

/// Why parameters do not fit a handler's own type.
#[derive(Debug, thiserror::Error)]
#[error("{field}: {}", .why.render(Locale::En))]
pub(super) struct Misfit {
    /// The field that does not fit, such as `file.path`; `.` for the parameters as a whole.
    pub(super) field: String,
    why: Text,
    /// True if a whole parameter is missing.
    pub(super) is_missing_param: bool,
}

pub(super) fn read<P: DeserializeOwned>(params: Value) -> Result<P, Misfit> {
    serde_path_to_error::deserialize(params).map_err(|error| {
        let field = shortened(&error.path().to_string());
        let error = error.inner();
        Misfit {
            is_missing_param: field == "." && error.to_string().starts_with("missing field"),
            why: json::misfit(error),
            field,
        }
    })
}

struct ComputeFn<P, F> {
    spec: NodeSpec,
    run: F,
    types: PhantomData<fn(P)>,
}

#[async_trait]
impl<P, O, F, Fut> ComputeHandler for ComputeFn<P, F>
where
    P: DeserializeOwned + Send + 'static,
    O: Serialize + Send + 'static,
    F: Fn(StepContext, P) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O, StepFailure>> + Send + 'static,
{
    fn spec(&self) -> &NodeSpec {
        &self.spec
    }
    async fn check(&self, request: CheckRequest) -> Vec<Issue> {
        request.misfits::<P>()
    }
    async fn run(&self, context: StepContext, params: Value) -> Result<Value, StepFailure> {
        let output = (self.run)(context, read_params(params)?).await?;
        // If the handler returns a `Value`, there is nothing to convert.
        let mut output = Some(output);
        match (&mut output as &mut dyn Any).downcast_mut::<Option<Value>>() {
            Some(value) => Ok(value.take().unwrap_or_default()),
            None => to_output(output),
        }
    }
}

type Run<P> =
    Box<dyn Fn(EffectContext, P) -> BoxFuture<Result<StepOutcome, StepFailure>> + Send + Sync>;
type Resumed<P> = Box<
    dyn Fn(EffectContext, P, Resolution) -> BoxFuture<Result<StepOutcome, StepFailure>>
        + Send
        + Sync,
>;
type ProbeFn<P> = Box<dyn Fn(EffectContext, P) -> BoxFuture<Probe> + Send + Sync>;

/// An effect handler made of async functions; see [`effect`].
pub struct EffectFn<P> {
    spec: NodeSpec,
    run: Run<P>,
    resumed: Resumed<P>,
    probe: ProbeFn<P>,
}

impl<P> EffectFn<P> {
    /// Sets the function that tells after a crash whether the effect happened. Without this function the
    /// answer is [`Probe::Unknown`], and a person is asked.
    #[must_use]
    pub fn probe<F, Fut>(mut self, probe: F) -> Self
    where
        F: Fn(EffectContext, P) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Probe> + Send + 'static,
    {
        self.probe = Box::new(move |context, params| Box::pin(probe(context, params)));
        self
    }

    /// Sets the function that continues after a successful wait. Without this function the step is done, with
    /// the wait's result as its output.
    #[must_use]
    pub fn resumed<F, Fut>(mut self, resumed: F) -> Self
    where
        F: Fn(EffectContext, P, Resolution) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<StepOutcome, StepFailure>> + Send + 'static,
    {
        self.resumed = Box::new(move |context, params, resolution| {
            Box::pin(resumed(context, params, resolution))
        });
        self
    }
}

impl<P: DeserializeOwned + Send + 'static> From<EffectFn<P>> for Handler {
    fn from(handler: EffectFn<P>) -> Self {
        Self::Effect(Arc::new(handler))
    }
}

#[async_trait]
impl<P: DeserializeOwned + Send + 'static> EffectHandler for EffectFn<P> {
    fn spec(&self) -> &NodeSpec {
        &self.spec
    }
    async fn check(&self, request: CheckRequest) -> Vec<Issue> {
        request.misfits::<P>()
    }
    async fn run(&self, context: EffectContext, params: Value) -> Result<StepOutcome, StepFailure> {
        (self.run)(context, read_params(params)?).await
    }
    async fn resumed(
        &self,
        context: EffectContext,
        params: Value,
        resolution: Resolution,
    ) -> Result<StepOutcome, StepFailure> {
        (self.resumed)(context, read_params(params)?, resolution).await
    }
    async fn probe(&self, context: EffectContext, params: Value) -> Probe {
        match read_params(params) {
            Ok(params) => (self.probe)(context, params).await,
            Err(_) => Probe::Unknown,
        }
    }
    fn preview(&self) -> Option<Arc<dyn ComputeHandler>> {
        None
    }
}
