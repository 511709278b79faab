//! The words in which an architecture is described.

use isqrt_cov_op::{Layer, OperatorKind, Vectorization};
use isqrt_cov_proto::onnx::tensor_proto::DataType;
use isqrt_cov_proto::onnx::{AttributeProto, NodeProto};

use crate::built::{Built, INPUT, OUTPUT, Placed};
use crate::fold::{self, Recipe};
use crate::layout::Layout;
use crate::node::node_of;
use crate::problem::Problem;
use crate::setting::{self, Choice, Settings, Source};
use crate::weights::Weights;

/// The orders of a triangle, as a setting says them; the first is usual.
const ORDERS: [&str; 2] = [Vectorization::Upper.word(), Vectorization::UpperColumnMajor.word()];

/// A feature map [N, C, H, W] in the graph.
#[derive(Debug, Clone)]
pub struct Features {
    name: String,
    /// C; nothing where the checkpoint does not say.
    pub channels: Option<usize>,
}

/// A vector [N, D] in the graph.
#[derive(Debug, Clone)]
pub struct Vector {
    name: String,
    width: Option<usize>,
}

/// Kernel, stride, padding and groups of a convolution; kernel and padding are the same in both directions unless said
/// otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    kernel: [usize; 2],
    stride: usize,
    padding: usize,
    groups: usize,
}

impl Window {
    /// A square window of stride 1 that leaves the size as it is.
    pub const fn square(kernel: usize) -> Self {
        Self { kernel: [kernel; 2], stride: 1, padding: kernel / 2, groups: 1 }
    }

    /// A window of `height` rows and one column, without padding, each channel for itself.
    pub const fn column_of_each(height: usize, channels: usize) -> Self {
        Self { kernel: [height, 1], stride: 1, padding: 0, groups: channels }
    }

    /// The window moved by `stride`.
    pub const fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// The window with `padding` on every side.
    pub const fn padding(self, padding: usize) -> Self {
        Self { padding, ..self }
    }

    fn attributes(&self) -> Vec<AttributeProto> {
        let pair = |value: usize| [value as i64; 2];
        vec![
            AttributeProto::ints("kernel_shape", &self.kernel.map(|size| size as i64)),
            AttributeProto::ints("strides", &pair(self.stride)),
            AttributeProto::ints("pads", &[self.padding as i64; 4]),
        ]
    }
}

/// The number of a convolution's output channels, and the names in the checkpoint of its weight and its bias.
type ConvolutionWeights = (Option<usize>, String, Option<String>);

/// A network as far as it is described.
#[derive(Debug)]
pub struct Network<'a> {
    weights: &'a Weights,
    layout: Layout,
    settings: &'a Settings,
    fold: bool,
    built: Built,
}

impl<'a> Network<'a> {
    /// A network of which nothing is described yet.
    pub(crate) fn new(weights: &'a Weights, layout: Layout, settings: &'a Settings, fold: bool) -> Self {
        Self { weights, layout, settings, fold, built: Built::default() }
    }

    /// The images, with as many channels as the convolution `name` takes.
    pub fn images(&mut self, name: &str) -> Features {
        let dims = self.dims(&format!("{name}.weight"));
        let channels = dims.and_then(|dims| Some(*dims.get(1)? as usize));
        self.built.channels = channels;
        Features { name: INPUT.to_owned(), channels }
    }

    /// Whether the checkpoint has the tensor `name`.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.dims(name).is_some()
    }

    /// The shape of the tensor `name`.
    #[must_use]
    pub fn dims(&self, name: &str) -> Option<&'a [i64]> {
        self.weights.dims(&(self.layout.rename)(name))
    }

    /// Whether a convolution called `part`, in any module, was described.
    #[must_use]
    pub fn reads(&self, part: &str) -> bool {
        self.built.nodes.iter().any(|node| node.name().ends_with(part))
    }

    /// What the checkpoint says of itself under `key`.
    #[must_use]
    pub fn fact(&self, key: &str) -> Option<&'a str> {
        self.weights.fact(key)
    }

    /// How the checkpoint names its tensors.
    #[must_use]
    pub fn layout(&self) -> &'static str {
        self.layout.name
    }

    /// Says what the network is called.
    pub fn is_called(&mut self, title: impl Into<String>) {
        self.built.title = title.into();
    }

    /// Says that something cannot be told.
    pub fn cannot_tell(&mut self, what: impl Into<String>) {
        self.built.problems.push(Problem::Unknown { what: what.into() });
    }

    /// Says what is as usual in such networks, and the weights would not tell if it were not.
    pub fn assumes(&mut self, what: &'static str) {
        if !self.built.assumptions.contains(&what) {
            self.built.assumptions.push(what);
        }
    }

    /// The value of a setting: what was given, or `usual`, for the reason `because`.
    pub fn choose(
        &mut self,
        name: &'static str,
        meaning: &'static str,
        values: &'static [&'static str],
        usual: &str,
        because: &str,
    ) -> String {
        let usual = || (usual, Source::Assumed(because.to_owned()));
        let given = self.settings.get(name).map(|(value, source)| (value, source.clone()));
        let (value, source) = given.unwrap_or_else(usual);
        let value = value.to_owned();
        if !self.built.choices.iter().any(|choice| choice.name == name) {
            let choice = Choice { name, meaning, value: value.clone(), values, source };
            self.built.choices.push(choice);
        }
        value
    }

    /// A convolution with the weights `{name}.weight`, and `{name}.bias` where the checkpoint has it.
    pub fn convolution(&mut self, x: &Features, name: &str, window: Window) -> Features {
        let weights = self.convolution_weights(x, name, &window);
        self.stored_convolution(x, weights, name, &window)
    }

    fn stored_convolution(
        &mut self,
        x: &Features,
        (channels, weight, bias): ConvolutionWeights,
        name: &str,
        window: &Window,
    ) -> Features {
        let mut inputs = vec![x.name.clone(), self.initializer(&weight, Recipe::Stored(weight.clone()))];
        inputs.extend(bias.map(|bias| self.initializer(&bias, Recipe::Stored(bias.clone()))));
        self.convolve(&inputs, name, window, channels)
    }

    /// A convolution and the batch normalization `norm` behind it.
    pub fn normalized(&mut self, x: &Features, name: &str, norm: &str, window: Window) -> Features {
        let (channels, weight, bias) = self.convolution_weights(x, name, &window);
        if !self.fold {
            // What comes out is called the same, folded or not.
            let x = self.stored_convolution(x, (channels, weight, bias), &format!("{name}/Conv"), &window);
            return self.normalize(&x, norm, name);
        }
        let norm = self.norm_weights(norm, channels);
        let folded_weight = Recipe::FoldedWeight { weight: weight.clone(), norm: norm.clone() };
        let folded_bias = Recipe::FoldedBias { bias, norm: norm.clone() };
        let of_bias = format!("{}.bias", weight.trim_end_matches(".weight"));
        let inputs = [
            x.name.clone(),
            self.initializer(&weight, folded_weight),
            self.initializer(&of_bias, folded_bias),
        ];
        self.convolve(&inputs, name, &window, channels)
    }

    fn convolve(
        &mut self,
        inputs: &[String],
        name: &str,
        window: &Window,
        channels: Option<usize>,
    ) -> Features {
        let mut attributes = window.attributes();
        if window.groups > 1 {
            attributes.push(AttributeProto::int("group", window.groups as i64));
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        Features { name: self.node("Conv", &inputs, name, attributes), channels }
    }

    /// The number of output channels, and the names of weight and bias.
    fn convolution_weights(&mut self, x: &Features, name: &str, window: &Window) -> ConvolutionWeights {
        let [height, width] = window.kernel.map(Some);
        let inner = x.channels.map(|channels| channels / window.groups);
        let weight = format!("{name}.weight");
        let (weight, dims) = self.expect(&weight, &[None, inner, height, width]);
        let channels = dims.first().copied().flatten();
        let bias = format!("{name}.bias");
        let bias = self.has(&bias).then(|| self.expect(&bias, &[channels]).0);
        (channels, weight, bias)
    }

    /// A batch normalization that no convolution stands directly before.
    pub fn batch_norm(&mut self, x: &Features, name: &str) -> Features {
        self.normalize(x, name, name)
    }

    fn normalize(&mut self, x: &Features, norm: &str, name: &str) -> Features {
        let norm = self.norm_weights(norm, x.channels);
        let mut inputs = vec![x.name.clone()];
        for part in ["weight", "bias", "running_mean", "running_var"] {
            let key = format!("{norm}.{part}");
            inputs.push(self.initializer(&key, Recipe::Stored(key.clone())));
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let epsilon = AttributeProto::float("epsilon", fold::EPSILON as f32);
        let name = self.node("BatchNormalization", &inputs, name, vec![epsilon]);
        Features { name, channels: x.channels }
    }

    /// The name in the checkpoint of the batch normalization `name`.
    fn norm_weights(&mut self, name: &str, channels: Option<usize>) -> String {
        self.assumes("batch normalizations have ε = 1e-5");
        let mut module = String::new();
        for part in ["weight", "bias", "running_mean", "running_var"] {
            let key = self.expect(&format!("{name}.{part}"), &[channels]).0;
            key.trim_end_matches(part).trim_end_matches('.').clone_into(&mut module);
        }
        // A count of training steps, which newer versions of PyTorch store and nothing here needs.
        let steps = format!("{module}.num_batches_tracked");
        if self.weights.tensor(&steps).is_some() {
            self.built.read.insert(steps);
        }
        module
    }

    /// max(x, 0).
    pub fn relu(&mut self, x: &Features) -> Features {
        Features { name: self.after(&x.name, "Relu", vec![]), channels: x.channels }
    }

    /// 1 / (1 + exp(−x)).
    pub fn sigmoid(&mut self, x: &Features) -> Features {
        Features { name: self.after(&x.name, "Sigmoid", vec![]), channels: x.channels }
    }

    /// The greatest value in each window.
    pub fn max_pool(&mut self, x: &Features, window: Window) -> Features {
        Features { name: self.after(&x.name, "MaxPool", window.attributes()), channels: x.channels }
    }

    /// x + y.
    pub fn add(&mut self, x: &Features, y: &Features, name: &str) -> Features {
        let name = self.node("Add", &[&x.name, &y.name], name, vec![]);
        Features { name, channels: x.channels }
    }

    /// x · y, where y may have one position for all of x's.
    pub fn multiply(&mut self, x: &Features, y: &Features, name: &str) -> Features {
        let name = self.node("Mul", &[&x.name, &y.name], name, vec![]);
        Features { name, channels: x.channels }
    }

    /// The covariance of the channels as a map of C channels with C×1 positions.
    pub fn covariance(&mut self, x: &Features, name: &str) -> Features {
        let layer = Layer::new(OperatorKind::CovariancePooling);
        let sigma = self.layer(layer, x, name);
        let axes = self.initializer(&format!("{name}/axes"), Recipe::Integers(vec![3]));
        let name = self.node("Unsqueeze", &[&sigma, &axes], &format!("{name}/column"), vec![]);
        Features { name, channels: x.channels }
    }

    /// The layer: covariance, `iterations` steps unless the settings say otherwise, the triangle.
    pub fn isqrt_cov(&mut self, x: &Features, iterations: &str, because: &str) -> Vector {
        // A value that cannot be is for who reads the choices to refuse.
        let iterations = self.choose("iterations", "number of Newton–Schulz steps", &[], iterations, because);
        let order = self.choose(
            "triangle",
            "order in which the classifier reads the triangle",
            &ORDERS,
            ORDERS[0],
            "row by row, as the authors' code has it since December 2018",
        );
        let vectorization = Vectorization::TRIANGLES.into_iter().find(|known| known.word() == order);
        let layer = Layer::new(OperatorKind::IsqrtCov);
        let vectorization = vectorization.unwrap_or(layer.vectorization);
        let iterations = setting::steps(&iterations).unwrap_or(layer.iterations);
        let name = self.layer(Layer { iterations, vectorization, ..layer }, x, "isqrt_cov");
        let twice = |channels: usize| channels.checked_mul(channels.checked_add(1)?);
        Vector { name, width: x.channels.and_then(twice).map(|twice| twice / 2) }
    }

    fn layer(&mut self, layer: Layer, x: &Features, name: &str) -> String {
        self.built.nodes.push(node_of(&layer, &x.name, name).named(name));
        self.built.layers.push(Placed {
            layer,
            input: x.name.clone(),
            output: name.to_owned(),
            channels: x.channels,
            classifier: None,
        });
        name.to_owned()
    }

    /// W x + b, or W x where the checkpoint has no b.
    pub fn linear(&mut self, x: &Vector, name: &str) -> Vector {
        let (weight, dims) = self.expect(&format!("{name}.weight"), &[None, x.width]);
        let width = dims.first().copied().flatten();
        if let Some(layer) = self.built.layers.iter_mut().find(|layer| layer.output == x.name) {
            layer.classifier = Some(weight.clone());
        }
        let mut inputs = vec![x.name.clone(), self.initializer(&weight, Recipe::Stored(weight.clone()))];
        let bias = format!("{name}.bias");
        if self.has(&bias) {
            let bias = self.expect(&bias, &[width]).0;
            inputs.push(self.initializer(&bias, Recipe::Stored(bias.clone())));
        } else {
            self.assumes("linear layers without a bias in the checkpoint have none");
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let name = self.node("Gemm", &inputs, name, vec![AttributeProto::int("transB", 1)]);
        Vector { name, width }
    }

    /// max(x, 0).
    pub fn rectified(&mut self, x: &Vector) -> Vector {
        Vector { name: self.after(&x.name, "Relu", vec![]), width: x.width }
    }

    /// Says that `x` holds the scores of the classes.
    pub fn scores(&mut self, x: &Vector) {
        self.built.classes = x.width;
        if let Some(node) = self.built.nodes.iter_mut().find(|node| node.output == [x.name.as_str()]) {
            node.output = vec![OUTPUT.to_owned()];
        }
    }

    /// Ends the description.
    pub(crate) fn end(self) -> Built {
        let weights = self.weights;
        self.described().with_surplus(weights)
    }

    /// What was described, without saying of the checkpoint's other tensors that they belong to nothing.
    pub(crate) fn described(self) -> Built {
        self.built
    }

    /// The name in the checkpoint of the tensor `name`, and its shape as far as it agrees with what is `expected`.
    fn expect(&mut self, name: &str, expected: &[Option<usize>]) -> (String, Vec<Option<usize>>) {
        let key = (self.layout.rename)(name);
        let Some(tensor) = self.weights.tensor(&key) else {
            self.built.problems.push(Problem::Missing { name: key.clone() });
            return (key, expected.to_vec());
        };
        self.built.read.insert(key.clone());
        let original = || self.weights.original(&key).to_owned();
        let data_type = DataType::try_from(tensor.data_type()).unwrap_or_default();
        if !matches!(data_type, DataType::Float | DataType::Double | DataType::Float16 | DataType::Bfloat16) {
            let found = data_type.as_str_name().to_lowercase();
            self.built.problems.push(Problem::Type { name: original(), found });
        }
        let found = &tensor.dims;
        let fits = |(expected, found): (&Option<usize>, &i64)| {
            *found > 0 && expected.is_none_or(|expected| expected as i64 == *found)
        };
        if found.len() == expected.len() && expected.iter().zip(found).all(fits) {
            return (key, found.iter().map(|&size| Some(size as usize)).collect());
        }
        self.built.problems.push(Problem::Shape {
            name: original(),
            expected: expected.to_vec(),
            found: found.clone(),
        });
        (key, expected.to_vec())
    }

    fn initializer(&mut self, name: &str, recipe: Recipe) -> String {
        self.built.recipes.push((name.to_owned(), recipe));
        name.to_owned()
    }

    /// A node with one output; both are called `name`.
    fn node(
        &mut self,
        operator: &str,
        inputs: &[&str],
        name: &str,
        attribute: Vec<AttributeProto>,
    ) -> String {
        let node = NodeProto::new(operator, inputs, &[name]).named(name);
        self.built.nodes.push(NodeProto { attribute, ..node });
        name.to_owned()
    }

    /// A node that reads `x` alone, called after it.
    fn after(&mut self, x: &str, operator: &str, attributes: Vec<AttributeProto>) -> String {
        self.node(operator, &[x], &format!("{x}/{operator}"), attributes)
    }
}
