//! The data of an ended execution, as JSON texts. The data is seldom read again, and a small JSON object
//! takes ten times as much memory when parsed.

use std::sync::Arc;

use docg_core::{
    observe::JsonText,
    run::{Inputs, Step},
};

use crate::weight;

/// The values taken out of an execution's inputs and steps.
pub(super) struct Packed {
    trigger_data: JsonText,
    /// The outputs, one per step.
    outputs: Box<[Option<JsonText>]>,
}

impl Packed {
    pub(super) fn take_from(inputs: &mut Arc<Inputs>, steps: &mut [Step]) -> Self {
        let trigger_data = JsonText::from(&*inputs.trigger_data);
        Arc::make_mut(inputs).trigger_data = Arc::default();
        let outputs = steps.iter_mut().map(|step| {
            let output = JsonText::from(&*step.output.take()?);
            // Most outputs equal the value shown to readers, so both share one text.
            Some(match &step.data_out {
                Some(shown) if *shown == output => shown.clone(),
                _ => output,
            })
        });
        Self {
            trigger_data,
            outputs: outputs.collect(),
        }
    }

    /// The size in bytes.
    pub(super) fn weight(&self) -> usize {
        let outputs = self
            .outputs
            .iter()
            .map(|output| weight::json_text(output.as_ref()));
        weight::json_text(Some(&self.trigger_data)) + outputs.sum::<usize>()
    }

    pub(super) fn put_into_inputs(&self, inputs: &mut Arc<Inputs>) {
        Arc::make_mut(inputs).trigger_data = Arc::new(self.trigger_data.to_value());
    }

    pub(super) fn put_into_steps(&self, steps: &mut [Step]) {
        for (step, output) in steps.iter_mut().zip(&self.outputs) {
            step.output = output.as_ref().map(|output| Arc::new(output.to_value()));
        }
    }
}
