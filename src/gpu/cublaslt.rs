//! cuBLASLt as the yardstick of benches, where its library can be loaded; nothing else uses it. Not yet run on a GPU.
use super::driver::Driver;
use super::{Device, Memory, Ptr};
use crate::{Error, Result};
use cudarc::cublaslt::{result, sys};
use std::ffi::c_void;
use std::rc::Rc;

/// What NVIDIA advises for Hopper.
const WORKSPACE: usize = 32 << 20;
/// CUBLAS_OP_T, which cudarc has among cuBLAS alone.
const TRANSPOSED: i32 = 1;
/// Algorithms that are tried.
const TRIED: usize = 8;

/// Types and arithmetic of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// bf16 in and out, f32 sums.
    Bf16,
    /// f32 in and out, tf32 products, f32 sums.
    Tf32,
    F32,
}

impl Product {
    fn types(self) -> (sys::cudaDataType, sys::cublasComputeType_t) {
        use sys::cublasComputeType_t::{CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F_FAST_TF32};
        match self {
            Self::Bf16 => (sys::cudaDataType::CUDA_R_16BF, CUBLAS_COMPUTE_32F),
            Self::Tf32 => (sys::cudaDataType::CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_TF32),
            Self::F32 => (sys::cudaDataType::CUDA_R_32F, CUBLAS_COMPUTE_32F),
        }
    }
}

/// Which of the factors are stored turned: A as \[k, m\], B as \[n, k\].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turned {
    pub a: bool,
    pub b: bool,
}

/// The library, with a workspace on a device.
#[derive(Debug)]
pub struct CublasLt {
    device: Rc<Driver>,
    workspace: Memory,
    handle: sys::cublasLtHandle_t,
}

impl CublasLt {
    /// `None` where the library is not to be had.
    pub fn load(device: &Rc<Driver>) -> Option<Self> {
        // SAFETY: loading the library runs its initialisers, which is what they are for.
        if !unsafe { sys::is_culib_present() } || !CALLED.iter().all(has) {
            return None;
        }
        let memory: Rc<dyn Device> = device.clone();
        let workspace = Memory::new(&memory, WORKSPACE).ok()?;
        // Allocating made the device's context current, which the handle is made for.
        let handle = result::create_handle().ok()?;
        Some(Self { device: device.clone(), workspace, handle })
    }

    /// C [m, n] = op(A) op(B), all row-major, `shape` being m, n, k. Of the algorithms that the library proposes, the
    /// fastest on these very addresses; `None` where it proposes none that works.
    pub fn best_matmul(
        &self,
        product: Product,
        turned: Turned,
        shape: [usize; 3],
        abc: [Ptr; 3],
    ) -> Option<Matmul<'_>> {
        let layout = Layout::new(product, turned, shape)?;
        let mut best: Option<(f64, sys::cublasLtMatmulAlgo_t)> = None;
        for algorithm in self.proposed(&layout)? {
            let matmul = Matmul { library: self, layout: &layout, abc, algorithm };
            let mut twice = || matmul.queue().and_then(|()| matmul.queue());
            // The first time loads its kernel.
            let seconds = twice().and_then(|()| self.device.time(&mut twice));
            match (seconds, &best) {
                (Ok(seconds), None) => best = Some((seconds, algorithm)),
                (Ok(seconds), Some((least, _))) if seconds < *least => best = Some((seconds, algorithm)),
                _ => {}
            }
        }
        let (_, algorithm) = best?;
        Some(Matmul { library: self, layout, abc, algorithm })
    }

    fn proposed(&self, layout: &Layout) -> Option<Vec<sys::cublasLtMatmulAlgo_t>> {
        let preference = result::create_matmul_pref().ok()?;
        let attribute = sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
        let mut found = [std::mem::MaybeUninit::<sys::cublasLtMatmulHeuristicResult_t>::uninit(); TRIED];
        let mut count = 0;
        // SAFETY: all descriptors are alive; the attribute is a size; at most TRIED results are written, and `count`
        // says how many.
        let answer = unsafe {
            let size = std::ptr::from_ref(&WORKSPACE).cast::<c_void>();
            result::set_matmul_pref_attribute(preference, attribute, size, size_of::<usize>()).and_then(|()| {
                let Layout { multiply, a, b, c } = *layout;
                let (asked, to) = (TRIED as i32, found.as_mut_ptr().cast());
                sys::cublasLtMatmulAlgoGetHeuristic(
                    self.handle,
                    multiply,
                    b,
                    a,
                    c,
                    c,
                    preference,
                    asked,
                    to,
                    &mut count,
                )
                .result()
            })
        };
        // SAFETY: created above, destroyed once.
        let _ = unsafe { result::destroy_matmul_pref(preference) };
        answer.ok()?;
        let written = found.iter().take(count.clamp(0, TRIED as i32) as usize);
        // SAFETY: `count` of them were written.
        let results = written.map(|result| unsafe { result.assume_init() });
        Some(results.filter(|r| r.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS).map(|r| r.algo).collect())
    }
}

impl Drop for CublasLt {
    fn drop(&mut self) {
        let _ = self.device.synchronize();
        // SAFETY: created by `load`, destroyed once, with nothing of it under way.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

/// A product that can be queued again and again.
#[derive(Debug)]
pub struct Matmul<'l, L = Layout> {
    library: &'l CublasLt,
    layout: L,
    abc: [Ptr; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
}

impl<L: std::borrow::Borrow<Layout>> Matmul<'_, L> {
    /// Queues it on the device's stream.
    pub fn queue(&self) -> Result<()> {
        let CublasLt { device, workspace, handle } = self.library;
        let Layout { multiply, a, b, c } = *self.layout.borrow();
        let [at_a, at_b, at_c] = self.abc.map(|at| std::ptr::without_provenance_mut::<c_void>(at.0 as usize));
        let (one, zero) = (1f32, 0f32);
        device.enter()?;
        // SAFETY: handle and descriptors are alive; the addresses are the caller's memory of the shapes they were
        // described with; the two factors are read before the call returns.
        let answer = unsafe {
            result::matmul(
                *handle,
                multiply,
                std::ptr::from_ref(&one).cast(),
                std::ptr::from_ref(&zero).cast(),
                at_b,
                b,
                at_a,
                a,
                at_c,
                c,
                at_c,
                c,
                &self.algorithm,
                std::ptr::without_provenance_mut(workspace.at().0 as usize),
                workspace.bytes(),
                device.stream().cast(),
            )
        };
        answer.map_err(|e| Error::device(device.describe(), format!("cublasLtMatmul: {e}"), "bench without it"))
    }
}

/// The product's descriptors. The library counts by columns, where a row-major matrix is its transpose: it makes
/// Cᵀ = op(B)ᵀ op(A)ᵀ, for which B is turned as it is stored, where it is \[n, k\], and A where it is \[k, m\].
#[derive(Debug)]
pub struct Layout {
    multiply: sys::cublasLtMatmulDesc_t,
    a: sys::cublasLtMatrixLayout_t,
    b: sys::cublasLtMatrixLayout_t,
    c: sys::cublasLtMatrixLayout_t,
}

impl Layout {
    fn new(product: Product, turned: Turned, [m, n, k]: [usize; 3]) -> Option<Self> {
        let (stored, compute) = product.types();
        let (a, b, c) = (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
        // What was made so far is destroyed where a later step fails.
        let mut made = Self { multiply: std::ptr::null_mut(), a, b, c };
        made.multiply = result::create_matmul_desc(compute, sys::cudaDataType::CUDA_R_32F).ok()?;
        let matrix = |rows: usize, columns: usize| {
            result::create_matrix_layout(stored, rows as u64, columns as u64, rows as i64).ok()
        };
        use sys::cublasLtMatmulDescAttributes_t::{CUBLASLT_MATMUL_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSB};
        made.a = if turned.a { matrix(m, k)? } else { matrix(k, m)? };
        made.b = if turned.b { matrix(k, n)? } else { matrix(n, k)? };
        made.c = matrix(n, m)?;
        // The library's first factor is B.
        let turns = [(turned.b, CUBLASLT_MATMUL_DESC_TRANSA), (turned.a, CUBLASLT_MATMUL_DESC_TRANSB)];
        for (_, which) in turns.into_iter().filter(|turn| turn.0) {
            let (at, bytes) = (std::ptr::from_ref(&TRANSPOSED).cast(), size_of_val(&TRANSPOSED));
            // SAFETY: the descriptor is alive; the attribute is a cublasOperation_t, an int.
            unsafe { result::set_matmul_desc_attribute(made.multiply, which, at, bytes) }.ok()?;
        }
        Some(made)
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        for matrix in [self.a, self.b, self.c].into_iter().filter(|matrix| !matrix.is_null()) {
            // SAFETY: made by `new`, destroyed once.
            let _ = unsafe { result::destroy_matrix_layout(matrix) };
        }
        if !self.multiply.is_null() {
            // SAFETY: as above.
            let _ = unsafe { result::destroy_matmul_desc(self.multiply) };
        }
    }
}

/// cudarc panics at a function that is missing.
fn has(name: &&str) -> bool {
    // SAFETY: the library is present; the symbol is looked at, not called.
    unsafe { sys::culib().get::<unsafe extern "C" fn()>(name.as_bytes()).is_ok() }
}

const CALLED: [&str; 12] = [
    "cublasLtCreate",
    "cublasLtDestroy",
    "cublasLtMatmul",
    "cublasLtMatmulAlgoGetHeuristic",
    "cublasLtMatmulDescCreate",
    "cublasLtMatmulDescDestroy",
    "cublasLtMatmulDescSetAttribute",
    "cublasLtMatmulPreferenceCreate",
    "cublasLtMatmulPreferenceDestroy",
    "cublasLtMatmulPreferenceSetAttribute",
    "cublasLtMatrixLayoutCreate",
    "cublasLtMatrixLayoutDestroy",
];
