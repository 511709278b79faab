//! How the inputs and outputs of two models correspond.

use crate::signature::{Port, Signature};

/// How the inputs and outputs of two models correspond.
#[derive(Debug, Clone, PartialEq)]
pub struct Alignment {
    /// For each input of the candidate, the reference's input that it is fed with.
    pub inputs: Vec<usize>,
    /// For each output of the reference, the candidate's output that it is compared with.
    pub outputs: Vec<usize>,
    /// What was assumed, for people.
    pub notes: Vec<String>,
}

impl Alignment {
    /// Matches inputs and outputs by name, or by position where the names differ.
    ///
    /// # Errors
    /// For people: why no model that computes the same function could look like this.
    pub fn of(reference: &Signature, candidate: &Signature) -> Result<Self, String> {
        let mut notes = Vec::new();
        let inputs = align(&candidate.inputs, &reference.inputs, "input", &mut notes)?;
        let outputs = align(&reference.outputs, &candidate.outputs, "output", &mut notes)?;
        Ok(Self { inputs, outputs, notes })
    }
}

/// For each port of `from`, the index of the port in `to` that corresponds.
fn align(from: &[Port], to: &[Port], what: &str, notes: &mut Vec<String>) -> Result<Vec<usize>, String> {
    let names = |ports: &[Port]| ports.iter().map(|port| port.name.clone()).collect::<Vec<_>>();
    if from.len() != to.len() {
        let (from, to) = (names(from).join("`, `"), names(to).join("`, `"));
        return Err(format!("one model has the {what}s `{from}`, the other `{to}`"));
    }
    let by_name: Option<Vec<usize>> =
        from.iter().map(|port| to.iter().position(|other| other.name == port.name)).collect();
    let matched = by_name.unwrap_or_else(|| {
        notes.push(format!(
            "the {what}s are named differently (`{}` and `{}`) and were matched by position",
            names(from).join("`, `"),
            names(to).join("`, `")
        ));
        (0..from.len()).collect()
    });
    for (port, &index) in from.iter().zip(&matched) {
        if let (Some(one), Some(other)) = (port.element, to[index].element)
            && one != other
        {
            return Err(format!(
                "{what} `{}` is {} in one model and {} in the other",
                port.name,
                one.name(),
                other.name()
            ));
        }
    }
    Ok(matched)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::ElementType;

    fn port(name: &str, element: ElementType) -> Port {
        Port { name: name.to_owned(), element: Some(element), dims: Some(Vec::new()), rows: None }
    }

    #[test]
    fn names_match_before_positions() {
        let f32 = ElementType::F32;
        let one = Signature { inputs: vec![port("a", f32), port("b", f32)], outputs: vec![] };
        let swapped = Signature { inputs: vec![port("b", f32), port("a", f32)], outputs: vec![] };
        assert_eq!(Alignment::of(&one, &swapped).unwrap().inputs, [1, 0]);
        let renamed = Signature { inputs: vec![port("c", f32), port("a", f32)], outputs: vec![] };
        let alignment = Alignment::of(&one, &renamed).unwrap();
        assert_eq!(alignment.inputs, [0, 1]);
        assert_eq!(alignment.notes.len(), 1);
        let fewer = Signature { inputs: vec![port("a", f32)], outputs: vec![] };
        assert!(Alignment::of(&one, &fewer).is_err());
        let double = Signature { inputs: vec![port("a", ElementType::F64), port("b", f32)], outputs: vec![] };
        assert!(Alignment::of(&one, &double).unwrap_err().contains("is double in one model and float"));
    }
}
