//! What commands answer.

use serde_json::Value;

/// What a command has to say.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// For machines, a JSON object.
    pub fields: Value,
    /// For people.
    pub text: String,
    /// Why the answer is no; nothing where it is yes.
    pub refusal: Option<Refusal>,
}

/// A no.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    /// A fixed word.
    pub reason: &'static str,
    /// For people: what was found, and what to do next.
    pub message: String,
}

impl Answer {
    /// The JSON object that machines get.
    pub fn to_json(&self) -> Value {
        let mut object = self.fields.clone();
        object["status"] = if self.refusal.is_none() { "done" } else { "no" }.into();
        if let Some(refusal) = &self.refusal {
            object["reason"] = refusal.reason.into();
            object["message"] = refusal.message.as_str().into();
        }
        object
    }
}
