//! Which compilation of the kernels a device gets.

use super::clusters::Clusters;

/// A compilation of the kernels, by the compute capability that it asks for at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Tier {
    /// 7.5, Turing.
    Sm75,
    /// 8.0, Ampere.
    Sm80,
    /// 9.0, Hopper.
    Sm90,
}

/// What plans depend on of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    /// The compilation of the kernels that it has.
    pub tier: Tier,
    /// Its multiprocessors.
    pub multiprocessors: u32,
    /// The most bytes of shared memory that a block may ask for.
    pub shared: u32,
    /// The clusters that it has room for.
    pub clusters: Clusters,
}

impl Tier {
    /// Every tier, the most demanding first.
    pub(super) const ALL: [Self; 3] = [Self::Sm90, Self::Sm80, Self::Sm75];

    /// Those that a device of compute capability `major.minor` can run, the best first; none below 7.5.
    pub(super) fn fitting(major: u32, minor: u32) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |tier| tier.capability() <= (major, minor))
    }

    /// The compute capability that it asks for, major and minor.
    pub(super) fn capability(self) -> (u32, u32) {
        match self {
            Self::Sm75 => (7, 5),
            Self::Sm80 => (8, 0),
            Self::Sm90 => (9, 0),
        }
    }

    /// Whether a kernel says when the next one may begin, and waits for the one before it: `let_next_begin` in `kernels/platform.cuh`.
    pub(super) fn overlaps(self) -> bool {
        self >= Self::Sm90
    }

    /// Whether blocks may wait for each other in clusters: `cluster_sync` in `kernels/platform.cuh`.
    pub(super) fn has_clusters(self) -> bool {
        self >= Self::Sm90
    }

    /// The kernels in PTX, which the driver compiles for its device.
    pub(super) fn ptx(self) -> &'static str {
        match self {
            Self::Sm75 => include_str!("ptx/sm_75.ptx"),
            Self::Sm80 => include_str!("ptx/sm_80.ptx"),
            Self::Sm90 => include_str!("ptx/sm_90.ptx"),
        }
    }
}

/// As the compiler writes it: `sm_80`.
impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (major, minor) = self.capability();
        write!(f, "sm_{major}{minor}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_gets_the_best_tier_that_it_can_run() {
        let fitting = |major, minor| Tier::fitting(major, minor).collect::<Vec<_>>();
        assert_eq!(fitting(7, 0), []);
        assert_eq!(fitting(6, 9), []);
        assert_eq!(fitting(7, 5), [Tier::Sm75]);
        assert_eq!(fitting(8, 0), [Tier::Sm80, Tier::Sm75]);
        assert_eq!(fitting(8, 9), [Tier::Sm80, Tier::Sm75]);
        assert_eq!(fitting(9, 0), Tier::ALL);
        assert_eq!(fitting(12, 0), Tier::ALL);
    }

    #[test]
    fn every_tier_is_compiled_for_its_capability() {
        for tier in Tier::ALL {
            assert!(tier.ptx().contains(&format!(".target {tier}")), "{tier}");
        }
    }
}
