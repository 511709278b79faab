//! The stub as a device: memory, and a call of the kernel as a runtime makes it.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::LazyLock;
use std::thread;

use half::{bf16, f16};
use isqrt_cov_op::cuda::{ElementType, Kernel};
use isqrt_cov_op::{Error, Layer};
use libloading::Library;

/// The library that the crate opens too.
static STUB: LazyLock<Library> = LazyLock::new(|| {
    // SAFETY: the stub runs nothing when it is opened but the making of its tables.
    unsafe { Library::new("libcuda.so.1") }.expect("the parent process has put the stub on the path")
});

/// Calls a function of the stub, whose arguments are of these types; nonzero is an error.
macro_rules! call {
    ($name:ident($($argument:expr => $type:ty),*)) => {{
        // SAFETY: the types are those of `driver.cpp`, and addresses are of memory that is large enough.
        let status = unsafe {
            let function = STUB.get::<unsafe extern "C" fn($($type),*) -> c_int>(stringify!($name)).expect("the stub has it");
            function($($argument),*)
        };
        assert_eq!(status, 0, stringify!($name));
    }};
}

/// In which order blocks and threads run: ascending, descending, shuffled.
pub const ORDERS: [c_int; 4] = [0, -1, 1, 2];

/// Sets the order of the calling thread's launches.
pub fn set_order(order: c_int) {
    // SAFETY: as in `driver.cpp`.
    unsafe {
        let function = STUB.get::<unsafe extern "C" fn(c_int)>("isqrt_stub_order").expect("the stub has it");
        function(order);
    }
}

/// Memory on the device, given back with it.
struct Memory {
    address: u64,
}

impl Memory {
    fn new(bytes: usize) -> Self {
        let mut address = 0_u64;
        call!(cuMemAlloc_v2(&raw mut address => *mut u64, bytes => usize));
        Self { address }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // After a failure the device may be at anything.
        if thread::panicking() {
            return;
        }
        call!(cuMemFree_v2(self.address => u64));
    }
}

/// Makes the device's context the calling thread's.
fn enter() {
    let mut context = ptr::null_mut();
    call!(cuInit(0 => u32));
    call!(cuDevicePrimaryCtxRetain(&raw mut context => *mut *mut c_void, 0 => c_int));
    call!(cuCtxSetCurrent(context => *mut c_void));
}

/// A stream of the device's context, which becomes the calling thread's.
pub fn stream() -> *mut c_void {
    enter();
    let mut stream = ptr::null_mut();
    call!(cuStreamCreate(&raw mut stream => *mut *mut c_void, 0 => u32));
    stream
}

/// Sets what the calling thread sees of the device, as `stub.hpp` lists it.
pub fn set(name: &CStr, value: &CStr) {
    // SAFETY: as in `stub.cpp`.
    unsafe {
        let function = STUB.get::<unsafe extern "C" fn(*const c_char, *const c_char)>("isqrt_stub_set");
        function.expect("the stub has it")(name.as_ptr(), value.as_ptr());
    }
}

/// What the calling thread has had the driver do since the last time, a line for each call.
pub fn log() -> String {
    let mut text = vec![0_u8; 1 << 16];
    // SAFETY: as in `stub.cpp`: no more bytes are written than it is told.
    let length = unsafe {
        let function = STUB.get::<unsafe extern "C" fn(*mut c_char, usize) -> usize>("isqrt_stub_log");
        function.expect("the stub has it")(text.as_mut_ptr().cast(), text.len())
    };
    assert!(length < text.len(), "a longer log");
    text.truncate(length);
    String::from_utf8(text).expect("names and numbers")
}

/// What the layer makes of `input`, as the bits of the output's elements, in clusters where there are some. The input is rounded to the type.
pub fn bits(layer: Layer, element: ElementType, input: &[f64], dims: &[usize]) -> Vec<u64> {
    enter();
    let kernel = Kernel::new(layer).expect("the stub is a device that the kernels run on");
    let kernel = kernel.with_clusters().expect("the context is there");
    run(&kernel, element, (input, dims), ptr::null_mut()).expect("the stub launches everything")
}

/// The same by a kernel, on a stream of the current context.
pub fn run(
    kernel: &Kernel,
    element: ElementType,
    (input, dims): (&[f64], &[usize]),
    stream: *mut c_void,
) -> Result<Vec<u64>, Error> {
    let tensors = Tensors::new(kernel.layer(), element, (input, dims));
    tensors.put(kernel, stream)?;
    Ok(tensors.output())
}

/// A call's input and output on the device, each behind one element that nobody reads: tensors begin anywhere.
pub struct Tensors {
    element: ElementType,
    dims: Vec<usize>,
    input: Memory,
    output: Memory,
    outputs: usize,
}

impl Tensors {
    pub fn new(layer: &Layer, element: ElementType, (input, dims): (&[f64], &[usize])) -> Self {
        let size = element.bytes();
        let channels = layer.extent(dims).expect("a shape that the layer takes").channels;
        let outputs = dims[0] * layer.output_elements(channels);
        let (from, to) = (Memory::new((1 + input.len()) * size), Memory::new((1 + outputs) * size));
        let bytes = encode(element, input);
        call!(cuMemcpyHtoD_v2(from.address + size as u64 => u64, bytes.as_ptr().cast() => *const c_void, bytes.len() => usize));
        Self { element, dims: dims.to_vec(), input: from, output: to, outputs }
    }

    /// Puts a call on a stream of the current context.
    pub fn put(&self, kernel: &Kernel, stream: *mut c_void) -> Result<(), Error> {
        let [from, to] =
            [&self.input, &self.output].map(|memory| memory.address + self.element.bytes() as u64);
        // SAFETY: the memory is the device's, and as large as the shape says; the stream is one of the caller's.
        unsafe { kernel.run(self.element, from, &self.dims, to, stream) }
    }

    /// The bits of the output's elements.
    pub fn output(&self) -> Vec<u64> {
        let size = self.element.bytes();
        let mut bytes = vec![0_u8; self.outputs * size];
        call!(cuMemcpyDtoH_v2(bytes.as_mut_ptr().cast() => *mut c_void, self.output.address + size as u64 => u64, bytes.len() => usize));
        let element =
            |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        bytes.chunks_exact(size).map(element).collect()
    }
}

/// Has what is put on `stream` go into a graph, from now on; meanwhile no thread may do what might wait for the device.
pub fn begin_capture(stream: *mut c_void) {
    call!(cuStreamBeginCapture_v2(stream => *mut c_void, 0 => c_int));
}

/// The graph of what was put on `stream` since; nothing where something spoiled it.
pub fn end_capture(stream: *mut c_void) -> Option<*mut c_void> {
    let mut graph = ptr::null_mut();
    // SAFETY: as in `capture.cpp`.
    let status = unsafe {
        let end =
            STUB.get::<unsafe extern "C" fn(*mut c_void, *mut *mut c_void) -> c_int>("cuStreamEndCapture");
        end.expect("the stub has it")(stream, &raw mut graph)
    };
    (status == 0).then_some(graph)
}

/// Runs a graph on a stream.
pub fn launch(graph: *mut c_void, stream: *mut c_void) {
    let mut ready = ptr::null_mut();
    call!(cuGraphInstantiateWithFlags(&raw mut ready => *mut *mut c_void, graph => *mut c_void, 0 => u64));
    call!(cuGraphLaunch(ready => *mut c_void, stream => *mut c_void));
}

/// What captures allow the calling thread: 0 where nobody has changed it.
pub fn capture_mode() -> c_int {
    let mut mode = 0;
    call!(cuThreadExchangeStreamCaptureMode(&raw mut mode => *mut c_int));
    mode
}

/// The numbers that an output's bits are.
pub fn values(element: ElementType, bits: &[u64]) -> Vec<f64> {
    let value = |&bits: &u64| match element {
        ElementType::Float => f32::from_bits(bits as u32).into(),
        ElementType::Double => f64::from_bits(bits),
        ElementType::Float16 => f16::from_bits(bits as u16).to_f64(),
        ElementType::BFloat16 => bf16::from_bits(bits as u16).to_f64(),
    };
    bits.iter().map(value).collect()
}

/// `input` as the type has it.
pub fn rounded(element: ElementType, input: &[f64]) -> Vec<f64> {
    let value = |&value: &f64| match element {
        ElementType::Float => f64::from(value as f32),
        ElementType::Double => value,
        ElementType::Float16 => f16::from_f64(value).to_f64(),
        ElementType::BFloat16 => bf16::from_f64(value).to_f64(),
    };
    input.iter().map(value).collect()
}

fn encode(element: ElementType, input: &[f64]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(input.len() * element.bytes());
    for &value in input {
        match element {
            ElementType::Float => bytes.extend((value as f32).to_le_bytes()),
            ElementType::Double => bytes.extend(value.to_le_bytes()),
            ElementType::Float16 => bytes.extend(f16::from_f64(value).to_le_bytes()),
            ElementType::BFloat16 => bytes.extend(bf16::from_f64(value).to_le_bytes()),
        }
    }
    bytes
}
