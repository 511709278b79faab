//! What the same weights are called in different projects' checkpoints.

/// A way of naming the weights of an architecture.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// What people call it.
    pub name: &'static str,
    /// The name in a checkpoint of what the description calls by its argument.
    pub rename: fn(&str) -> String,
}

/// Names as in the description.
pub(crate) const fn plain(name: &'static str) -> Layout {
    Layout { name, rename: str::to_owned }
}

/// `name` with the module in front of it called otherwise, as the first of `modules` (description, checkpoint) that fits
/// says.
pub(crate) fn renamed(name: &str, modules: &[(&str, &str)]) -> String {
    let fits = |module: &str| name.strip_prefix(module).filter(|rest| rest.starts_with('.'));
    modules
        .iter()
        .find_map(|(from, to)| Some(format!("{to}{}", fits(from)?)))
        .unwrap_or_else(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_modules_are_renamed() {
        let modules = [("conv1", "features.0"), ("layer1", "features.4")];
        assert_eq!(renamed("conv1.weight", &modules), "features.0.weight");
        assert_eq!(renamed("layer1.0.conv1.weight", &modules), "features.4.0.conv1.weight");
        assert_eq!(renamed("conv10.weight", &modules), "conv10.weight");
    }
}
