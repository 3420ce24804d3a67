use std::ops::Range;
use std::sync::Arc;

use half::bf16;
use memmap2::Mmap;

use crate::gpu::GpuMemory;
use crate::reuse::{Owned, unwritten};
use crate::{DType, Element, Error, Gpu, Result, Shape};

/// Where a tensor's memory lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// Main memory.
    #[default]
    Cpu,
    /// A GPU's memory.
    Cuda(Gpu),
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(gpu) => write!(f, "cuda:{}", gpu.ordinal()),
        }
    }
}

/// A contiguous, row-major array of numbers with a shape. Cloning shares the memory; writing to shared or
/// mapped memory copies it first.
#[derive(Clone)]
pub struct Tensor {
    shape: Shape,
    dtype: DType,
    memory: Memory,
}

#[derive(Clone)]
enum Memory {
    F32(Arc<Owned>),
    Bf16(Arc<Vec<bf16>>),
    U32(Arc<Vec<u32>>),
    /// Bytes of a mapped file, aligned for the tensor's dtype.
    Mapped(Arc<Mmap>, Range<usize>),
    Gpu(Arc<GpuMemory>),
}

impl Tensor {
    /// A tensor of zeros.
    ///
    /// # Errors
    /// As [`Shape::new`].
    pub fn zeros(sizes: &[usize], dtype: DType) -> Result<Self> {
        let shape = Shape::new(sizes)?;
        let n = shape.elements();
        let memory = match dtype {
            DType::F32 => Memory::F32(Arc::new(Owned(vec![0.0; n]))),
            DType::BF16 => Memory::Bf16(Arc::new(vec![bf16::ZERO; n])),
            DType::U32 => Memory::U32(Arc::new(vec![0; n])),
            DType::Q8 | DType::Q4 => Memory::U32(Arc::new(vec![0; dtype.bytes(&shape) / 4])),
        };
        Ok(Self { shape, dtype, memory })
    }

    /// A tensor of f32 in main memory for a kernel to write, all of it: see [`unwritten`].
    ///
    /// # Errors
    /// As [`Shape::new`].
    pub fn unwritten(sizes: &[usize]) -> Result<Self> {
        let numbers = unwritten(Shape::new(sizes)?.elements());
        Self::new(sizes, numbers)
    }

    /// Quantised weights `[n, k]` from their tiles.
    ///
    /// # Errors
    /// A format that is not quantised, or bytes of another number than the shape asks for.
    pub fn quantized(sizes: [usize; 2], dtype: DType, tiles: Vec<u32>) -> Result<Self> {
        let shape = Shape::new(&sizes)?;
        let found = Error::Shape { wanted: format!("tiles of {} bytes", 4 * tiles.len()), found: sizes.to_vec() };
        let fits = dtype.tile().is_some() && dtype.bytes(&shape) == 4 * tiles.len();
        if fits { Ok(Self { shape, dtype, memory: Memory::U32(Arc::new(tiles)) }) } else { Err(found) }
    }

    /// A tensor of zeros on a device.
    ///
    /// # Errors
    /// As [`Shape::new`], or what the GPU says.
    pub fn zeros_on(device: &Device, sizes: &[usize], dtype: DType) -> Result<Self> {
        let Device::Cuda(gpu) = device else { return Self::zeros(sizes, dtype) };
        let shape = Shape::new(sizes)?;
        let mut memory = GpuMemory::new(gpu, dtype.bytes(&shape))?;
        memory.clear()?;
        Ok(Self { shape, dtype, memory: Memory::Gpu(Arc::new(memory)) })
    }

    /// A tensor on a GPU with anything in it, for a kernel to write.
    ///
    /// # Errors
    /// As [`Shape::new`], or what the GPU says.
    pub fn undefined(gpu: &Gpu, sizes: &[usize], dtype: DType) -> Result<Self> {
        let shape = Shape::new(sizes)?;
        let memory = GpuMemory::new(gpu, dtype.bytes(&shape))?;
        Ok(Self { shape, dtype, memory: Memory::Gpu(Arc::new(memory)) })
    }

    /// A tensor that takes over `values`, row-major.
    ///
    /// # Errors
    /// As [`Shape::new`], or a length that is not the shape's.
    pub fn new<T: Element>(sizes: &[usize], values: Vec<T>) -> Result<Self> {
        let shape = Shape::new(sizes)?;
        if shape.elements() != values.len() {
            return Err(Error::Shape { wanted: format!("{} elements", values.len()), found: sizes.to_vec() });
        }
        // The casts are between a type and itself: `T` is one of three, told apart by its tag.
        let memory = match T::DTYPE {
            DType::Q8 | DType::Q4 => return Self::zeros(sizes, T::DTYPE), // no `T` has these
            DType::F32 => Memory::F32(Arc::new(Owned(bytemuck::allocation::cast_vec(values)))),
            DType::BF16 => Memory::Bf16(Arc::new(bytemuck::allocation::cast_vec(values))),
            DType::U32 => Memory::U32(Arc::new(bytemuck::allocation::cast_vec(values))),
        };
        Ok(Self { shape, dtype: T::DTYPE, memory })
    }

    /// A tensor over a part of a mapped file; `None` where the bytes are too few, too many or misaligned.
    pub(crate) fn mapped(shape: Shape, dtype: DType, map: &Arc<Mmap>, bytes: Range<usize>) -> Option<Self> {
        let part = map.get(bytes.clone())?;
        let fits = part.len() == dtype.bytes(&shape);
        let aligned = part.as_ptr().addr().is_multiple_of(dtype.size());
        (fits && aligned).then(|| Self { shape, dtype, memory: Memory::Mapped(map.clone(), bytes) })
    }

    /// The sizes of the axes.
    pub fn shape(&self) -> &[usize] {
        self.shape.sizes()
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.shape.elements()
    }

    /// The number format.
    pub const fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where the memory is.
    pub fn device(&self) -> &Device {
        match &self.memory {
            Memory::Gpu(memory) => &memory.device,
            _ => &Device::Cpu,
        }
    }

    /// The same numbers on another device; the same memory if they are there already.
    ///
    /// # Errors
    /// What a GPU says.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        match (&self.memory, device) {
            _ if self.device() == device => Ok(self.clone()),
            (Memory::Gpu(memory), Device::Cpu) => {
                let bytes = memory.read()?;
                match self.dtype {
                    DType::F32 => Self::new(self.shape(), bytemuck::pod_collect_to_vec::<u8, f32>(&bytes)),
                    DType::BF16 => Self::new(self.shape(), bytemuck::pod_collect_to_vec::<u8, bf16>(&bytes)),
                    DType::U32 => Self::new(self.shape(), bytemuck::pod_collect_to_vec::<u8, u32>(&bytes)),
                    DType::Q8 | DType::Q4 => {
                        let (n, k) = self.dims2()?;
                        Self::quantized([n, k], self.dtype, bytemuck::pod_collect_to_vec::<u8, u32>(&bytes))
                    }
                }
            }
            (Memory::Gpu(_), Device::Cuda(_)) => self.to_device(&Device::Cpu)?.to_device(device),
            (_, Device::Cuda(gpu)) => {
                let mut memory = GpuMemory::new(gpu, self.size())?;
                memory.write(self.bytes()?)?;
                Ok(Self { shape: self.shape, dtype: self.dtype, memory: Memory::Gpu(Arc::new(memory)) })
            }
            _ => Ok(self.clone()),
        }
    }

    /// Sets every number to zero. Shared or mapped memory is left to the others.
    ///
    /// # Errors
    /// What the GPU says.
    pub fn clear(&mut self) -> Result<()> {
        if let Memory::Gpu(shared) = &mut self.memory
            && let Some(memory) = Arc::get_mut(shared)
        {
            return memory.clear();
        }
        *self = Self::zeros_on(&self.device().clone(), self.shape(), self.dtype)?;
        Ok(())
    }

    /// Replaces all numbers, in the same memory unless it is shared or mapped.
    ///
    /// # Errors
    /// Another dtype than `T`, another number of elements, or what a GPU says.
    pub fn write<T: Element>(&mut self, values: &[T]) -> Result<()> {
        if T::DTYPE != self.dtype {
            return Err(Error::DType { wanted: T::DTYPE, found: self.dtype });
        }
        if values.len() != self.elements() {
            return Err(Error::Shape { wanted: format!("{} elements", values.len()), found: self.shape().to_vec() });
        }
        if let Memory::Gpu(shared) = &mut self.memory {
            if Arc::get_mut(shared).is_none() {
                *shared = Arc::new(GpuMemory::new(&shared.gpu().clone(), values.len() * T::DTYPE.size())?);
            }
            return Arc::get_mut(shared).map_or(Ok(()), |memory| memory.write(bytemuck::cast_slice(values)));
        }
        self.values_mut::<T>()?.copy_from_slice(values);
        Ok(())
    }

    /// The size in bytes.
    pub fn size(&self) -> usize {
        self.dtype.bytes(&self.shape)
    }

    /// Where the numbers are in the memory of `gpu`, for a kernel on its stream to read.
    ///
    /// # Errors
    /// The tensor is elsewhere.
    pub fn gpu_pointer(&self, gpu: &Gpu) -> Result<u64> {
        match &self.memory {
            Memory::Gpu(memory) if memory.gpu() == gpu => Ok(memory.pointer()),
            _ => Err(self.elsewhere(Device::Cuda(gpu.clone()))),
        }
    }

    /// As [`gpu_pointer`](Self::gpu_pointer), to write to. Shared memory is copied first.
    ///
    /// # Errors
    /// The tensor is elsewhere, or what the GPU says.
    pub fn gpu_pointer_mut(&mut self, gpu: &Gpu) -> Result<u64> {
        if self.device() != &Device::Cuda(gpu.clone()) {
            return Err(self.elsewhere(Device::Cuda(gpu.clone())));
        }
        if let Memory::Gpu(shared) = &mut self.memory {
            if Arc::get_mut(shared).is_none() {
                *shared = Arc::new(shared.duplicate()?);
            }
            if let Some(memory) = Arc::get_mut(shared) {
                return Ok(memory.pointer_mut());
            }
        }
        Err(self.elsewhere(Device::Cuda(gpu.clone())))
    }

    fn elsewhere(&self, wanted: Device) -> Error {
        Error::Device { wanted, found: self.device().clone() }
    }

    /// The size of a tensor of one axis.
    ///
    /// # Errors
    /// Another number of axes.
    pub fn dims1(&self) -> Result<usize> {
        match *self.shape() {
            [a] => Ok(a),
            _ => Err(self.axes("one axis")),
        }
    }

    /// The sizes of a tensor of two axes.
    ///
    /// # Errors
    /// Another number of axes.
    pub fn dims2(&self) -> Result<(usize, usize)> {
        match *self.shape() {
            [a, b] => Ok((a, b)),
            _ => Err(self.axes("two axes")),
        }
    }

    fn axes(&self, wanted: &str) -> Error {
        Error::Shape { wanted: wanted.into(), found: self.shape().to_vec() }
    }

    /// The elements, row-major.
    ///
    /// # Errors
    /// Another dtype than `T`, or a tensor on a GPU.
    pub fn values<T: Element>(&self) -> Result<&[T]> {
        if T::DTYPE != self.dtype {
            return Err(Error::DType { wanted: T::DTYPE, found: self.dtype });
        }
        Ok(bytemuck::cast_slice(self.bytes()?))
    }

    /// The elements, row-major, to write to. Shared or mapped memory is copied first.
    ///
    /// # Errors
    /// Another dtype than `T`, or a tensor on a GPU.
    pub fn values_mut<T: Element>(&mut self) -> Result<&mut [T]> {
        if T::DTYPE != self.dtype {
            return Err(Error::DType { wanted: T::DTYPE, found: self.dtype });
        }
        if let Memory::Mapped(..) = self.memory {
            *self = Self::new(self.shape(), self.values::<T>()?.to_vec())?;
        }
        let elsewhere = self.elsewhere(Device::Cpu);
        Ok(match &mut self.memory {
            Memory::F32(v) => bytemuck::cast_slice_mut(&mut Arc::make_mut(v).0),
            Memory::Bf16(v) => bytemuck::cast_slice_mut(Arc::make_mut(v).as_mut_slice()),
            Memory::U32(v) => bytemuck::cast_slice_mut(Arc::make_mut(v).as_mut_slice()),
            Memory::Mapped(..) => &mut [], // replaced by owned memory just above
            Memory::Gpu(_) => return Err(elsewhere),
        })
    }

    /// The memory as bytes, in this machine's order.
    ///
    /// # Errors
    /// A tensor on a GPU.
    pub fn bytes(&self) -> Result<&[u8]> {
        Ok(match &self.memory {
            Memory::F32(v) => bytemuck::cast_slice(&v.0),
            Memory::Bf16(v) => bytemuck::cast_slice(v.as_slice()),
            Memory::U32(v) => bytemuck::cast_slice(v.as_slice()),
            Memory::Mapped(map, part) => &map[part.clone()],
            Memory::Gpu(_) => return Err(self.elsewhere(Device::Cpu)),
        })
    }

    /// The same numbers in another float format (bf16 rounds to nearest even); the same memory if it is that already.
    ///
    /// # Errors
    /// From or to u32.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        match (self.dtype, dtype) {
            (a, b) if a == b => Ok(self.clone()),
            // Only for weights on their way to a GPU, so that no kernel is needed.
            _ if self.device() != &Device::Cpu => {
                self.to_device(&Device::Cpu)?.to_dtype(dtype)?.to_device(self.device())
            }
            (DType::F32, DType::BF16) => {
                Self::new(self.shape(), self.values::<f32>()?.iter().map(|&x| bf16::from_f32(x)).collect())
            }
            (DType::BF16, DType::F32) => {
                Self::new(self.shape(), self.values::<bf16>()?.iter().map(|&x| x.to_f32()).collect())
            }
            (found, wanted) => Err(Error::DType { wanted, found }),
        }
    }

    /// The same memory under another shape of as many elements.
    ///
    /// # Errors
    /// Another number of elements.
    pub fn reshape(mut self, sizes: &[usize]) -> Result<Self> {
        let shape = Shape::new(sizes)?;
        // Tiles hold to their rows and columns.
        let tiled = self.dtype.tile().is_some() && shape != self.shape;
        if tiled || shape.elements() != self.elements() {
            return Err(Error::Shape { wanted: format!("{} elements", self.elements()), found: sizes.to_vec() });
        }
        self.shape = shape;
        Ok(self)
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor {} {:?}", self.dtype, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_to_shared_memory_leaves_the_other_owner_alone() {
        let a = Tensor::new(&[2], vec![1.0f32, 2.0]).unwrap();
        let mut b = a.clone();
        b.values_mut::<f32>().unwrap()[0] = 9.0;
        assert_eq!(a.values::<f32>().unwrap(), [1.0, 2.0]);
        assert_eq!(b.values::<f32>().unwrap(), [9.0, 2.0]);
    }

    #[test]
    fn wrong_counts_dtypes_and_sizes_are_errors() {
        assert!(Tensor::new(&[3], vec![0u32; 2]).is_err());
        assert!(Tensor::zeros(&[1, 1, 1, 1, 1], DType::F32).is_err());
        assert!(Tensor::zeros(&[usize::MAX, 2], DType::F32).is_err());
        assert!(Tensor::zeros(&[2], DType::U32).unwrap().values::<f32>().is_err());
        assert!(Tensor::zeros(&[2, 3], DType::F32).unwrap().reshape(&[5]).is_err());
    }

    #[test]
    fn bf16_rounds_to_nearest_even() {
        let x = Tensor::new(&[2], vec![1.0f32 + 1.0 / 256.0, 1.0 + 3.0 / 256.0]).unwrap();
        let back = x.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap();
        assert_eq!(back.values::<f32>().unwrap(), [1.0, 1.0 + 4.0 / 256.0]);
    }
}
