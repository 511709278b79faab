//! Where in a file the state dict is: under a usual key or, where there is none, wherever a network's tensors are.

use std::collections::{HashSet, VecDeque};
use std::path::Path;

use isqrt_cov_models::{Settings, Weights, recognize_within};
use isqrt_cov_proto::Printable;
use isqrt_cov_proto::onnx::TensorProto;

use super::Error;
use super::pickle::{Id, Pickle, Value};

/// Under which keys training scripts keep the state dict; the earlier wins.
const USUAL: [&str; 7] =
    ["state_dict", "model_state_dict", "model", "net", "params", "weights", "ema_state_dict"];

/// How many dicts, lists and tuples around a state dict there are at most, the file's own among them.
const DEPTH: usize = 3;
/// The most dicts, lists and tuples that are looked into, outer ones first.
const VISITED: usize = 1 << 14;
/// As many tensors as may stand somewhere without being a network.
const FEW: usize = 4;
/// The most dicts of tensors that are tried as networks, and the most tensors in them.
const TRIED: usize = 16;
const TRIED_TENSORS: usize = 1 << 14;

/// The state dict of a file.
pub(super) struct Place<'p> {
    /// Its tensors and whatever else is among them.
    pub(super) entries: &'p [(Id, Id)],
    /// What the file holds beside it.
    pub(super) beside: &'p [(Id, Id)],
    /// What is not as usual about it.
    pub(super) notes: Vec<String>,
}

/// A dict of tensors.
struct Tensors<'p> {
    /// The keys that lead to it; none where it is the file's own.
    keys: Vec<String>,
    /// The place of its own key among those that are usual.
    rank: Option<usize>,
    entries: &'p [(Id, Id)],
    count: usize,
}

/// Finds the state dict of `pickle`.
pub(super) fn find<'p>(path: &Path, pickle: &'p Pickle<'_>) -> Result<Place<'p>, Error> {
    let top: &[(Id, Id)] = match pickle.get(pickle.top) {
        Value::Dict(top) => top,
        _ => &[],
    };
    let all = collect(path, pickle)?;
    let chosen = choose(path, pickle, &all)?;
    let Some((chosen, passed)) = chosen else {
        let found = match pickle.get(pickle.top) {
            Value::Dict(_) if all.is_empty() => {
                format!("its keys are {}, and none is a dict of tensors", keys(pickle, top))
            }
            Value::Dict(_) => {
                format!(
                    "its keys are {}, and only few tensors are together: {}",
                    keys(pickle, top),
                    listed(&all)
                )
            }
            other => format!("the file is about {}", other.kind()),
        };
        return Err(Error::StateDict { path: path.to_owned(), found });
    };
    let is_usual = chosen.keys.is_empty() || chosen.keys.len() == 1 && chosen.rank.is_some();
    let mut notes = Vec::new();
    if !is_usual {
        notes.push(format!("taken from {}", chosen.name()));
    }
    notes.extend(passed.iter().map(|passed| format!("{} passed over", passed.counted())));
    let beside = if chosen.keys.is_empty() { &[] } else { top };
    Ok(Place { entries: chosen.entries, beside, notes })
}

/// The one of `all` that is the state dict, and others that could have been. Nothing where there is none.
fn choose<'a, 'p>(
    path: &Path,
    pickle: &Pickle<'_>,
    all: &'a [Tensors<'p>],
) -> Result<Option<(&'a Tensors<'p>, Vec<&'a Tensors<'p>>)>, Error> {
    let large: Vec<&Tensors<'_>> = all.iter().filter(|tensors| tensors.count > FEW).collect();
    let mut fitting: Vec<&Tensors<'_>> = Vec::new();
    let mut left = TRIED_TENSORS;
    // Networks have more tensors than what stands beside them.
    let mut tried: Vec<&Tensors<'_>> =
        large.iter().copied().filter(|tensors| tensors.count <= left).collect();
    tried.sort_by_key(|tensors| std::cmp::Reverse(tensors.count));
    for tensors in tried.into_iter().take(TRIED) {
        if tensors.count > left {
            continue;
        }
        left -= tensors.count;
        if tensors.is_network(pickle) {
            fitting.push(tensors);
        }
    }
    let at_top = |tensors: &&Tensors<'_>| tensors.keys.len() == 1 && tensors.rank.is_some();
    let usual = all.iter().filter(at_top).min_by_key(|tensors| tensors.rank);
    let own = |tensors: &[&'a Tensors<'p>]| tensors.iter().find(|tensors| tensors.keys.is_empty()).copied();
    let chosen = match (usual, &fitting[..], &large[..]) {
        (Some(usual), fitting, _) if usual.count > FEW || fitting.is_empty() => Some(usual),
        (_, &[only], _) | (_, [], &[only]) => Some(only),
        (_, [], []) => all.first().filter(|first| first.keys.is_empty()),
        (_, [], several) => own(several),
        (_, several, _) => own(several).or_else(|| most_usual(several)),
    };
    let Some(chosen) = chosen else {
        let several = if fitting.is_empty() { large } else { fitting };
        if several.is_empty() {
            return Ok(None);
        }
        return Err(Error::Refused {
            path: path.to_owned(),
            found: format!("several dicts of tensors: {}", listed(several)),
            advice: "torch.load the file and torch.save the one that is meant, alone or under `state_dict`",
        });
    };
    fitting.retain(|tensors| !std::ptr::eq(*tensors, chosen));
    Ok(Some((chosen, fitting)))
}

/// The one whose key is the most usual; nothing where another's is as usual.
fn most_usual<'a, 'p>(several: &[&'a Tensors<'p>]) -> Option<&'a Tensors<'p>> {
    let rank = |tensors: &Tensors<'_>| tensors.rank.map(|rank| (tensors.keys.len(), rank));
    let best = several.iter().filter_map(|tensors| rank(tensors)).min()?;
    let mut found = several.iter().filter(|tensors| rank(tensors) == Some(best));
    found.next().filter(|_| found.next().is_none()).copied()
}

/// The first of them, with the numbers of their tensors.
fn listed<'a, 'p: 'a>(several: impl IntoIterator<Item = &'a Tensors<'p>>) -> String {
    const SHOWN: usize = 8;
    let mut names: Vec<String> = several.into_iter().take(SHOWN + 1).map(Tensors::counted).collect();
    if names.len() > SHOWN {
        names.truncate(SHOWN);
        names.push("…".to_owned());
    }
    names.join(", ")
}

/// All dicts of tensors, outer ones first.
fn collect<'p>(path: &Path, pickle: &'p Pickle<'_>) -> Result<Vec<Tensors<'p>>, Error> {
    let mut all = Vec::new();
    let mut known = HashSet::from([pickle.top]);
    let mut open = VecDeque::from([(pickle.top, Vec::new(), None)]);
    while let Some((id, keys, rank)) = open.pop_front() {
        let mut inner = |key: String, value: Id, rank: Option<usize>| {
            let is_container = matches!(pickle.get(value), Value::Dict(_) | Value::List(_) | Value::Tuple(_));
            if is_container && keys.len() < DEPTH && known.len() < VISITED && known.insert(value) {
                let keys: Vec<String> = keys.iter().cloned().chain([key]).collect();
                open.push_back((value, keys, rank));
            }
        };
        match pickle.get(id) {
            Value::List(items) | Value::Tuple(items) => {
                let items = items.iter().take(VISITED).enumerate();
                items.for_each(|(index, &item)| inner(format!("[{index}]"), item, None));
            }
            Value::Dict(entries) => {
                once(path, pickle, entries)?;
                for &(key, value) in entries {
                    match *pickle.get(key) {
                        Value::Text(key) => {
                            let rank = USUAL.iter().position(|usual| *usual == key);
                            inner(Printable(key).to_string(), value, rank);
                        }
                        Value::Int(key) => inner(key.to_string(), value, None),
                        ref key => inner(format!("({})", key.kind()), value, None),
                    }
                }
                let is_tensor = |entry: &&(Id, Id)| matches!(pickle.get(entry.1), Value::Tensor(_));
                let count = entries.iter().filter(is_tensor).count();
                if count > 0 {
                    all.push(Tensors { keys, rank, entries, count });
                }
            }
            _ => {}
        }
    }
    Ok(all)
}

/// Checks that no key but a tensor's stands twice: PyTorch would take the last of them, and of tensors that is checked
/// where they are read.
fn once(path: &Path, pickle: &Pickle<'_>, entries: &[(Id, Id)]) -> Result<(), Error> {
    let mut known = HashSet::with_capacity(entries.len());
    for &(key, value) in entries {
        let &Value::Text(key) = pickle.get(key) else { continue };
        if !known.insert(key) && !matches!(pickle.get(value), Value::Tensor(_)) {
            return Err(Error::Refused {
                path: path.to_owned(),
                found: format!("key `{}` stands twice", Printable(key)),
                advice: "expected each once: load and save the file with torch, which takes the last",
            });
        }
    }
    Ok(())
}

impl Tensors<'_> {
    fn name(&self) -> String {
        if self.keys.is_empty() { "the file itself".to_owned() } else { format!("`{}`", self.keys.join(".")) }
    }

    fn counted(&self) -> String {
        format!("{} ({} tensor{})", self.name(), self.count, if self.count == 1 { "" } else { "s" })
    }

    /// Whether the names and shapes are those of a network that is known.
    fn is_network(&self, pickle: &Pickle<'_>) -> bool {
        let outline = self.entries.iter().filter_map(|&(key, value)| {
            let (&Value::Text(name), Value::Tensor(tensor)) = (pickle.get(key), pickle.get(value)) else {
                return None;
            };
            let element = tensor.element.or_else(|| match pickle.get(tensor.storage) {
                Value::Storage(storage) => Some(storage.element),
                _ => None,
            });
            Some(TensorProto {
                name: Some(name.to_owned()),
                dims: tensor.dims.clone(),
                data_type: element.and_then(|element| element.onnx).map(Into::into),
                ..TensorProto::default()
            })
        });
        Weights::new(outline, Vec::new())
            .is_ok_and(|weights| recognize_within(&weights, &Settings::default()).fitting().is_some())
    }
}

/// The first keys, for messages.
fn keys(pickle: &Pickle<'_>, entries: &[(Id, Id)]) -> String {
    const SHOWN: usize = 8;
    let key = |(key, _): &(Id, Id)| match pickle.get(*key) {
        Value::Text(text) => format!("`{}`", Printable(text)),
        other => other.kind().to_owned(),
    };
    let mut keys: Vec<String> = entries.iter().take(SHOWN).map(key).collect();
    if entries.len() > SHOWN {
        keys.push(format!("{} more", entries.len() - SHOWN));
    }
    if keys.is_empty() { "none".to_owned() } else { keys.join(", ") }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;

    use super::super::Error;
    use super::super::pickle::Pickle;
    use super::super::state_dict::{self, Contents};

    fn text(text: &str) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap().to_le_bytes();
        [b"X", &length[..], text.as_bytes()].concat()
    }

    fn dict(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let entries = entries.iter().flat_map(|(key, value)| [text(key), value.clone(), b"s".to_vec()]);
        [b"}".to_vec()].into_iter().chain(entries).flatten().collect()
    }

    fn sequence(end: u8, items: &[Vec<u8>]) -> Vec<u8> {
        [b"(".to_vec(), items.concat(), vec![end]].concat()
    }

    fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
        sequence(b't', items)
    }

    fn integer(value: i32) -> Vec<u8> {
        [b"J", &value.to_le_bytes()[..]].concat()
    }

    fn tensor(dims: &[i32]) -> Vec<u8> {
        let kind = b"ctorch\nFloatStorage\n".to_vec();
        let storage = tuple(&[text("storage"), kind, text("0"), text("cpu"), integer(10_000)]);
        let stride = |axis: usize| integer(dims[axis + 1..].iter().product());
        let strides: Vec<Vec<u8>> = (0..dims.len()).map(stride).collect();
        let sizes: Vec<Vec<u8>> = dims.iter().map(|&dim| integer(dim)).collect();
        let hooks = b"ccollections\nOrderedDict\n)R".to_vec();
        let parts = [
            [storage, b"Q".to_vec()].concat(),
            integer(0),
            tuple(&sizes),
            tuple(&strides),
            vec![0x89],
            hooks,
        ];
        [b"ctorch._utils\n_rebuild_tensor_v2\n".to_vec(), tuple(&parts), b"R".to_vec()].concat()
    }

    /// The digit classifier with a residual, each name after `prefix`.
    fn network(prefix: &str) -> Vec<(String, Vec<u8>)> {
        let mut tensors = Vec::new();
        for (module, norm, dims) in [
            ("conv1", "bn1", [4, 1, 3, 3]),
            ("conv2", "bn2", [4, 4, 3, 3]),
            ("conv3", "bn3", [4, 4, 3, 3]),
            ("reduce", "reduce_bn", [2, 4, 1, 1]),
        ] {
            tensors.push((format!("{prefix}{module}.weight"), tensor(&dims)));
            for part in ["weight", "bias", "running_mean", "running_var"] {
                tensors.push((format!("{prefix}{norm}.{part}"), tensor(&dims[..1])));
            }
        }
        tensors.push((format!("{prefix}classifier.weight"), tensor(&[10, 3])));
        tensors.push((format!("{prefix}classifier.bias"), tensor(&[10])));
        tensors
    }

    fn named(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
        dict(&entries.iter().map(|(name, value)| (name.as_str(), value.clone())).collect::<Vec<_>>())
    }

    fn state_dict() -> Vec<u8> {
        named(&network(""))
    }

    fn others(count: usize) -> Vec<(String, Vec<u8>)> {
        (0..count).map(|index| (format!("{index}.weight"), tensor(&[2, 2]))).collect()
    }

    /// Tensors of no network that is known.
    fn other() -> Vec<u8> {
        named(&others(9))
    }

    fn read(value: &[u8]) -> Result<Contents, Error> {
        let program = [b"\x80\x02", value, b"."].concat();
        let pickle = Pickle::read(&program, 0).unwrap();
        state_dict::read(Path::new("file"), &pickle, 40_000, |_| Ok(Bytes::from(vec![0; 40_000])))
    }

    fn refusal(value: &[u8]) -> String {
        read(value).err().unwrap().to_string()
    }

    #[test]
    fn a_key_that_stands_twice_is_refused() {
        let twice = refusal(&dict(&[("state_dict", state_dict()), ("state_dict", other())]));
        assert!(twice.contains("`state_dict` stands twice"), "{twice}");
        let inside = dict(&[("net", state_dict()), ("net", other())]);
        let twice = refusal(&dict(&[("epoch", integer(3)), ("state", inside)]));
        assert!(twice.contains("`net` stands twice"), "{twice}");
    }

    #[test]
    fn the_network_is_found_wherever_it_stands() {
        let loose = ("best_acc", tensor(&[1]));
        for value in [
            dict(&[("network", state_dict()), loose.clone(), ("epoch", integer(1))]),
            dict(&[("params", dict(&[("lr", tensor(&[1]))])), ("network", state_dict())]),
            dict(&[("state", dict(&[("model", state_dict()), ("optimizer", dict(&[]))]))]),
            dict(&[("model", dict(&[("state_dict", state_dict())]))]),
            sequence(b'l', &[state_dict(), dict(&[("lr", integer(1))])]),
            tuple(&[dict(&[("generator", state_dict()), ("discriminator", other())]), integer(1)]),
            dict(&[("network", state_dict()), ("optimizer", dict(&[("state", other())]))]),
            {
                let small: Vec<String> = (0..20).map(|index| format!("d{index}")).collect();
                let small = small.iter().map(|name| (name.as_str(), other()));
                dict(&small.chain([("network", state_dict())]).collect::<Vec<_>>())
            },
        ] {
            let found = read(&value).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(found.tensors.len(), network("").len());
        }
    }

    /// How many tensors are taken of what is read, and what is said of that.
    #[test]
    fn of_several_the_usual_one_is_taken() {
        let with = |mut entries: Vec<(String, Vec<u8>)>, key: &str, value: Vec<u8>| {
            entries.push((key.to_owned(), value));
            named(&entries)
        };
        let memorized = [state_dict(), b"q\x07".to_vec()].concat();
        for (value, count, notes) in [
            (dict(&[("state_dict", state_dict())]), 22, &[][..]),
            (state_dict(), 22, &[]),
            (dict(&[("few", state_dict())]), 22, &["taken from `few`"]),
            (
                dict(&[("model_ema", state_dict()), ("model", state_dict())]),
                22,
                &["`model_ema` (22 tensors) passed over"],
            ),
            (
                dict(&[("model", dict(&[("ema", state_dict()), ("net", state_dict())]))]),
                22,
                &["taken from `model.net`", "`model.ema` (22 tensors) passed over"],
            ),
            // The earlier of the usual keys, wherever it stands.
            (dict(&[("model", other()), ("state_dict", state_dict())]), 22, &[]),
            // A usual key at the top is believed, one further inside is not.
            (
                dict(&[("state_dict", other()), ("network", state_dict())]),
                9,
                &["`network` (22 tensors) passed over"],
            ),
            (
                dict(&[("loss", dict(&[("model", other())])), ("network", state_dict())]),
                22,
                &["taken from `network`"],
            ),
            // The nearer of two that are usual further inside.
            (
                dict(&[
                    ("a", dict(&[("b", dict(&[("state_dict", state_dict())]))])),
                    ("c", dict(&[("net", state_dict())])),
                ]),
                22,
                &["taken from `c.net`", "`a.b.state_dict` (22 tensors) passed over"],
            ),
            // The file's own tensors before those under a key.
            (with(network(""), "copy", state_dict()), 22, &["`copy` (22 tensors) passed over"]),
            (with(others(7), "loss", other()), 7, &[]),
            (dict(&[("loss", named(&others(5)))]), 5, &["taken from `loss`"]),
            // One dict under two keys is one.
            (dict(&[("a", memorized), ("b", b"h\x07".to_vec())]), 22, &["taken from `a`"]),
        ] {
            let read = read(&value).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(
                (read.tensors.len(), &read.notes[..]),
                (count, &notes.iter().map(|note| (*note).to_owned()).collect::<Vec<_>>()[..])
            );
        }
        let ten: Vec<_> = (0..10).map(|index| (format!("d{index}"), other())).collect();
        for (value, listed) in [
            (
                dict(&[("student", state_dict()), ("loss", other()), ("teacher", state_dict())]),
                "several dicts of tensors: `student` (22 tensors), `teacher` (22 tensors); ",
            ),
            (
                dict(&[("a", dict(&[("net", state_dict())])), ("b", dict(&[("net", state_dict())]))]),
                "`a.net` (22 tensors), `b.net` (22 tensors)",
            ),
            (named(&ten), "`d7` (9 tensors), …"),
        ] {
            let several = refusal(&value);
            assert!(several.contains(listed), "{several}");
        }
    }

    #[test]
    fn the_search_is_bounded() {
        let nested = |depth| (0..depth).fold(state_dict(), |inner, _| dict(&[("in", inner)]));
        assert!(read(&nested(3)).is_ok());
        assert!(refusal(&nested(4)).contains("its keys are `in`, and none is a dict of tensors"));
        // A network behind others that are larger: too many of them, or with too many tensors together.
        let many: Vec<_> = (0..16).map(|index| (format!("d{index}"), named(&others(23)))).collect();
        let large = |count: usize| {
            let shared = [tensor(&[2, 2]), b"q\x07".to_vec()].concat();
            let again = std::iter::repeat_n(b"h\x07".to_vec(), count - 1);
            let values = std::iter::once(shared).chain(again).enumerate();
            named(&values.map(|(index, value)| (format!("{index}.weight"), value)).collect::<Vec<_>>())
        };
        assert_eq!(read(&large(1 << 14)).unwrap().tensors.len(), 1 << 14);
        assert!(refusal(&large((1 << 14) + 1)).contains("a state dict of 16385 tensors"));
        let large = vec![("d0".to_owned(), large(1 << 13)), ("d1".to_owned(), large(1 << 13))];
        for mut decoys in [many, large] {
            decoys.push(("network".to_owned(), state_dict()));
            assert!(refusal(&named(&decoys)).contains("several dicts of tensors: `d0`"));
            decoys.remove(0);
            assert!(read(&named(&decoys)).is_ok());
        }
    }

    #[test]
    fn what_is_beside_the_weights_is_told_where_it_is_short() {
        let complex = {
            let tensor = tensor(&[1]);
            let at = tensor.windows(12).position(|bytes| bytes == b"FloatStorage").unwrap();
            [&tensor[..at], b"ComplexFloatStorage", &tensor[at + 12..]].concat()
        };
        let found = read(&dict(&[
            ("state_dict", state_dict()),
            ("epoch", integer(3)),
            ("best", tensor(&[1, 1])),
            ("several", tensor(&[2])),
            ("complex", complex),
            ("word", text(&"w".repeat(256))),
            ("longer", text(&"w".repeat(257))),
            ("lines", text("a\nb")),
        ]));
        let names: Vec<String> = found.unwrap().facts.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["epoch", "best", "word"]);
    }

    #[test]
    fn what_is_no_plain_tensor_is_named() {
        for (value, said) in [
            ("cnumpy.core.multiarray\n_reconstruct\n)R", "`odd`: is a NumPy array"),
            ("ctorch._utils\n_rebuild_meta_tensor_no_storage\n)R", "`odd`: is a meta tensor without data"),
            ("ctorch._utils\n_rebuild_sparse_tensor\n)R", "`odd`: is a sparse tensor"),
        ] {
            let odd = ("odd".to_owned(), value.as_bytes().to_vec());
            let refused = refusal(&named(&[network(""), vec![odd]].concat()));
            assert!(refused.contains(said), "{refused}");
        }
        // What is none has no part in how many there are.
        let more = (0..1 << 14).map(|index| (format!("n{index}"), integer(1)));
        let more: Vec<_> = network("").into_iter().chain(more).collect();
        assert_eq!(read(&named(&more)).unwrap().tensors.len(), 22);
    }

    #[test]
    fn there_being_no_tensors_is_said_only_where_it_is_true() {
        let none = refusal(&dict(&[("epoch", integer(1)), ("args", dict(&[]))]));
        assert!(none.contains("its keys are `epoch`, `args`, and none is a dict of tensors"), "{none}");
        let several = refusal(&dict(&[("one", other()), ("two", other())]));
        assert!(several.contains("`one` (9 tensors), `two` (9 tensors)"), "{several}");
        let few = refusal(&dict(&[("lr", named(&others(4)))]));
        assert!(few.contains("and only few tensors are together: `lr` (4 tensors)"), "{few}");
        let ten: Vec<_> = (0..10).map(|index| (format!("k{index}"), integer(index))).collect();
        assert!(refusal(&named(&ten)).contains("`k7`, 2 more, and none is"));
    }
}
