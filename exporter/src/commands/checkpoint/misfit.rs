//! Why a checkpoint is of no architecture that is known, and what can be done.

use std::path::{Path, PathBuf};

use isqrt_cov_models::Problem;
use isqrt_cov_models::architectures::ARCHITECTURES;
use isqrt_cov_proto::Printable;

use super::Read;

/// Parts of names that PyTorch's ways of changing a layer leave behind, and what undoes the change before saving.
const CHANGED: [(&[&str], &str); 6] = [
    (
        &["parametrizations"],
        "a parametrization, such as a weight or spectral norm: before saving, call \
         torch.nn.utils.parametrize.remove_parametrizations(module, \"weight\")",
    ),
    (&["weight_g"], "a weight norm: before saving, call torch.nn.utils.remove_weight_norm(module)"),
    (&["weight_mask"], "pruning: before saving, call torch.nn.utils.prune.remove(module, \"weight\")"),
    (&["weight_u"], "a spectral norm: before saving, call torch.nn.utils.remove_spectral_norm(module)"),
    (&["lora_A", "lora_B"], "LoRA: before saving, call merge_and_unload()"),
    (&["_packed_params"], "quantization: save the network as it was trained, before it is quantized"),
];

/// The way that remains for every network.
const EXPORT: &str = "export the model from PyTorch with torch.onnx.export(…, dynamo=True), and \
     convert that file";

/// What can be done where only tensors are too many.
const IGNORE: &str = "All else fits: convert leaves out a tensor, or a module, with --ignore NAME, if it is no part of the network \
     that is wanted, as a second head is not";

/// How many things that do not fit are named.
const SHOWN: usize = 100;

/// Why the file `path` is of no architecture that is known.
pub(super) fn misfit(read: &Read, path: &Path) -> String {
    let mut said = vec![nearest(read)];
    said.extend(changed(|| read.weights.names().map(|name| read.weights.original(name))));
    said.extend(index_of(path).map(|index| {
        format!("The file is one of several: give the index that names them all, {}", index.display())
    }));
    let is_surplus = |problem: &Problem| matches!(problem, Problem::Surplus { .. });
    let surplus = read.candidate.as_ref().filter(|_| read.doubt.is_none());
    let fits = surplus.is_some_and(|candidate| candidate.built.problems.iter().all(is_surplus));
    said.extend(fits.then(|| IGNORE.to_owned()));
    let way = if fits { "If it is a part of it" } else { "The way that remains" };
    said.push(format!("{way}: {EXPORT}"));
    said.join(". ")
}

/// What undoes the change of a layer that one of `names` tells.
fn changed<'n, N: Iterator<Item = &'n str>>(names: impl Fn() -> N) -> Option<String> {
    CHANGED.iter().find_map(|(parts, what)| {
        let name = names().find(|name| name.split('.').any(|part| parts.contains(&part)))?;
        Some(format!("`{}` is of {what}", Printable(name)))
    })
}

fn nearest(read: &Read) -> String {
    if let Some(doubt) = &read.doubt {
        return format!("{doubt}: save the state dict of the one that is meant");
    }
    let weights = &read.weights;
    let Some(candidate) = &read.candidate else {
        let names = weights.names().map(|name| weights.original(name)).take(5);
        let names: Vec<String> = names.map(|name| format!("`{}`", Printable(name))).collect();
        let more = if weights.len() > names.len() { ", …" } else { "" };
        let known: Vec<&str> = ARCHITECTURES.iter().map(|known| known.name).collect();
        return format!(
            "the tensors ({}{more}) are those of no known architecture, which are {}",
            names.join(", "),
            known.join(", ")
        );
    };
    let count = candidate.built.problems.len();
    let mut problems: Vec<String> =
        candidate.built.problems.iter().take(SHOWN).map(Problem::to_string).collect();
    if count > SHOWN {
        problems.push(format!("{} more, which inspect --json lists", count - SHOWN));
    }
    format!(
        "it is most like {} ({}), but {} not fit: {}",
        candidate.built.title,
        candidate.layout.name,
        if count == 1 { "one thing does".to_owned() } else { format!("{count} things do") },
        problems.join("; ")
    )
}

/// The index beside a file that is one of several: `m.safetensors.index.json` of `m-00001-of-00003.safetensors`.
fn index_of(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?.strip_suffix(".safetensors")?;
    let (name, of) = name.rsplit_once("-of-")?;
    let (name, number) = name.rsplit_once('-')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let index = path.with_file_name(format!("{name}.safetensors.index.json"));
    (is_number(of) && is_number(number) && index.is_file()).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_undoes_a_change_is_said() {
        for (name, said) in [
            ("fc.parametrizations.weight.original0", "remove_parametrizations"),
            ("fc.weight_g", "remove_weight_norm"),
            ("fc.weight_mask", "prune.remove"),
            ("fc.weight_u", "remove_spectral_norm"),
            ("fc.lora_A.default.weight", "merge_and_unload"),
            ("fc.lora_B.default.weight", "merge_and_unload"),
            ("fc._packed_params._packed_params", "before it is quantized"),
        ] {
            let hint = changed(|| ["conv1.weight", name].into_iter()).unwrap();
            assert!(hint.contains(said) && hint.contains(name), "{hint}");
        }
        assert!(changed(|| ["conv1.weight", "optim_weight_update"].into_iter()).is_none());
    }

    #[test]
    fn the_index_of_a_shard_is_found_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let index = folder.path().join("m.safetensors.index.json");
        std::fs::write(&index, "{}").unwrap();
        let of = |name: &str| index_of(&folder.path().join(name));
        assert_eq!(of("m-00001-of-00003.safetensors"), Some(index.clone()));
        assert!(of("m.safetensors").is_none() && of("n-00001-of-00003.safetensors").is_none());
        for name in ["m-one-of-three", "m-00001-of-three", "m-one-of-00003", "m--of-00003"] {
            assert!(of(&format!("{name}.safetensors")).is_none(), "{name}");
        }
    }
}
