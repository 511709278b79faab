//! Which compilation of the kernels a device gets.

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
    /// The clusters that it has room for.
    pub clusters: Clusters,
}

/// The most blocks that a cluster has on any device.
const MOST_BLOCKS: usize = 16;

/// How many clusters of so many blocks a device has room for at a time, by how many stages each block has shared memory for; none without an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Clusters([[u32; 2]; MOST_BLOCKS + 1]);

impl Clusters {
    /// Those that `room` tells of: of so many blocks, and with as many stages as a block has that is alone on its multiprocessor, or with fewer.
    /// Clusters of one block need not run at a time.
    pub(super) fn ask(multiprocessors: u32, mut room: impl FnMut(u32, bool) -> u32) -> Self {
        Self(std::array::from_fn(|blocks| match blocks {
            0 => [0; 2],
            1 => [u32::MAX, multiprocessors],
            _ => [false, true].map(|alone| room(blocks as u32, alone)),
        }))
    }

    /// Whether the blocks of `samples` clusters of so many `blocks` are alone; none where not all of the clusters run at a time: those left over
    /// would take as long again, and a launch for each product is then faster.
    pub(super) fn alone(&self, blocks: usize, samples: usize) -> Option<bool> {
        let [few, many] = *self.0.get(blocks)?;
        [(many, true), (few, false)]
            .into_iter()
            .find(|(room, _)| samples <= *room as usize)
            .map(|(_, alone)| alone)
    }
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
    fn clusters_are_used_where_all_of_them_have_room() {
        let room = |blocks, alone| if blocks > 8 { 0 } else { 24 / (1 + u32::from(alone)) };
        let clusters = Clusters::ask(20, room);
        assert_eq!(clusters.alone(3, 12), Some(true));
        assert_eq!(clusters.alone(3, 13), Some(false));
        assert_eq!(clusters.alone(3, 25), None);
        assert_eq!(clusters.alone(1, 20), Some(true));
        assert_eq!(clusters.alone(1, 1000), Some(false));
        for blocks in [0, 10, 16, 17] {
            assert_eq!(clusters.alone(blocks, 1), None, "{blocks}");
        }
        assert_eq!(Clusters::default().alone(1, 1), None);
    }

    #[test]
    fn every_tier_is_compiled_for_its_capability() {
        for tier in Tier::ALL {
            assert!(tier.ptx().contains(&format!(".target {tier}")), "{tier}");
        }
    }
}
