//! Intel's AMX: registers that hold tiles of 16 rows of 64 bytes, and an instruction that multiplies 16 rows of 32 numbers in bf16 by 32
//! rows of 16 and adds to sums in f32. Of the 32 products of a sum, those at even places are summed and those at odd ones, then both are
//! added: so a sum's bits depend on its row and its column alone. Another instruction does so with bytes, in whole numbers.

use std::arch::asm;
use std::arch::x86_64::{
    __cpuid_count, __m512, __m512bh, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cvtne2ps_pbh, _mm512_loadu_si512,
    _mm512_permutexvar_epi16,
};
use std::marker::PhantomData;
use std::sync::OnceLock;

use crate::linear::aligned;
use crate::simd;
use crate::simd::wide::{load_512, store_512};

/// What a register holds: of the left factor, in each row 16 pairs along k; of the right one, in each row a pair of each of 16 columns; of
/// the result, sums.
pub(crate) type Tile = [[f32; LANES]; LANES];
pub(crate) const LANES: usize = 16;
/// Numbers along k in a tile.
pub(crate) const STEP: usize = 2 * LANES;
/// Two tiles of the left factor by two of the right one are multiplied together.
pub(crate) const PAIR: usize = 2 * LANES;
/// Steps after which sums return to memory: so many tiles of both factors, two by two, fit in the first-level cache.
const STEPS: usize = 8;

/// Whether the machine has tiles, and the system lets this process use them.
pub(crate) fn is_here() -> bool {
    static HERE: OnceLock<bool> = OnceLock::new();
    *HERE.get_or_init(|| simd::has_bf16() && may_be_used())
}

/// Whether it multiplies bytes in them too; kept, as asking the processor takes microseconds in a virtual machine.
pub(crate) fn has_bytes() -> bool {
    const BYTES: u32 = 1 << 25;
    static HERE: OnceLock<bool> = OnceLock::new();
    *HERE.get_or_init(|| is_here() && __cpuid_count(7, 0).edx & BYTES != 0)
}

/// Whether the processor has them and multiplies bf16 there, and the system lets this process use them: Linux wants to be asked.
#[cfg(target_os = "linux")]
fn may_be_used() -> bool {
    const BF16_AND_TILES: u32 = 1 << 22 | 1 << 24;
    const REQUEST: libc::c_int = 0x1023;
    const TILE_DATA: libc::c_ulong = 18;
    let found = __cpuid_count(0, 0).eax >= 7 && __cpuid_count(7, 0).edx & BF16_AND_TILES == BF16_AND_TILES;
    // SAFETY: it takes two numbers, and changes nothing but what this process may do.
    found && unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) } == 0
}

#[cfg(not(target_os = "linux"))]
fn may_be_used() -> bool {
    false
}

/// How many rows and bytes of a row each register has (`LDTILECFG` in Intel's manual).
#[repr(align(64))]
struct Shape([u8; 64]);

/// The registers, ready for use: all eight with 16 rows of 64 bytes. One at a time on a thread, as its end closes them all.
pub(crate) struct Registers(PhantomData<*const ()>);

impl Registers {
    /// Panics where there are none: see [`is_here`].
    pub fn open() -> Self {
        Self::with([[LANES as u8, 64]; 8])
    }

    /// The registers with so many rows of so many bytes.
    fn with(sizes: [[u8; 2]; 8]) -> Self {
        assert!(is_here(), "tiles are for machines that have them");
        let mut shape = Shape([0; 64]);
        shape.0[0] = 1;
        for (register, [rows, bytes]) in sizes.into_iter().enumerate() {
            shape.0[16 + 2 * register] = bytes;
            shape.0[48 + register] = rows;
        }
        // SAFETY: 64 bytes of a shape that the processor allows; it has the registers, as was just asserted.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const shape, options(nostack, preserves_flags)) };
        Self(PhantomData)
    }

    /// `c = a · b` with panels of `steps` tiles along k, an even number of them in a and in b; c has a row of tiles for each panel of a.
    #[allow(clippy::unused_self)] // that there is one says that they are ready
    pub fn multiply(&self, a: &[Tile], b: &[Tile], steps: usize, c: &mut [Tile]) {
        let wide = b.len() / steps;
        let tall = a.len() / steps;
        assert!(wide.is_multiple_of(2) && tall.is_multiple_of(2) && c.len() == tall * wide, "whole pairs of panels");
        for first in (0..steps).step_by(STEPS) {
            let some = first..steps.min(first + STEPS);
            for (j, b) in b.chunks_exact(2 * steps).enumerate() {
                let b = b.split_at(steps);
                let b = [&b.0[some.clone()], &b.1[some.clone()]];
                for (a, c) in a.chunks_exact(2 * steps).zip(c.chunks_exact_mut(2 * wide)) {
                    let a = a.split_at(steps);
                    let a = [&a.0[some.clone()], &a.1[some.clone()]];
                    let (above, below) = c.split_at_mut(wide);
                    four(a, b, [&mut above[2 * j..], &mut below[2 * j..]], first == 0);
                }
            }
        }
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        // SAFETY: it empties the registers, which hold nothing of use now.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}

/// Two panels by two, of one length, which is not 0: `c = a · b` if this is the first part of k, otherwise `c += a · b`; c two rows that
/// begin with two tiles.
#[inline]
fn four(a: [&[Tile]; 2], b: [&[Tile]; 2], c: [&mut [Tile]; 2], first: bool) {
    let steps = a[0].len();
    assert!(steps > 0 && [a[1].len(), b[0].len(), b[1].len()] == [steps; 3] && c.iter().all(|c| c.len() >= 2));
    let [above, below] = c;
    // SAFETY: the registers are ready, as the caller has them. They take 16 rows of 64 bytes from each of `steps` tiles of four panels, and from
    // two times two tiles of c, to which they give as many.
    unsafe {
        asm!(
            "test {add}, {add}",
            "jnz 2f",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "jmp 3f",
            "2:",
            "tileloadd tmm0, [{above} + {row} * 1]",
            "tileloadd tmm1, [{above} + {row} * 1 + {tile}]",
            "tileloadd tmm2, [{below} + {row} * 1]",
            "tileloadd tmm3, [{below} + {row} * 1 + {tile}]",
            "3:",
            "tileloadd tmm4, [{a0} + {row} * 1]",
            "tileloadd tmm6, [{b0} + {row} * 1]",
            "tileloadd tmm7, [{b1} + {row} * 1]",
            "tileloadd tmm5, [{a1} + {row} * 1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a0}, {tile}",
            "add {a1}, {tile}",
            "add {b0}, {tile}",
            "add {b1}, {tile}",
            "dec {steps}",
            "jnz 3b",
            "tilestored [{above} + {row} * 1], tmm0",
            "tilestored [{above} + {row} * 1 + {tile}], tmm1",
            "tilestored [{below} + {row} * 1], tmm2",
            "tilestored [{below} + {row} * 1 + {tile}], tmm3",
            a0 = inout(reg) a[0].as_ptr() => _,
            a1 = inout(reg) a[1].as_ptr() => _,
            b0 = inout(reg) b[0].as_ptr() => _,
            b1 = inout(reg) b[1].as_ptr() => _,
            above = in(reg) above.as_mut_ptr(),
            below = in(reg) below.as_mut_ptr(),
            steps = inout(reg) steps => _,
            row = in(reg) size_of::<[f32; LANES]>(),
            add = in(reg) usize::from(!first),
            tile = const size_of::<Tile>(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack)
        );
    }
}

/// Numbers along k that [`Bytes`] multiplies at once: half a register's row of them, which is as many as share a scale.
const DEPTH: usize = 32;

/// The registers, ready for 8 or 16 rows of 32 bytes times 32 rows of 16. As with [`Registers`], one at a time on a thread.
pub(crate) struct Bytes(Registers);

impl Bytes {
    /// Panics where there are none: see [`has_bytes`].
    pub fn open() -> Self {
        assert!(has_bytes(), "products of bytes are for machines that have them");
        let of = |rows: u8| [[rows, 64], [rows, DEPTH as u8]];
        let ([sums, x], [sums_of_16, x_of_16]) = (of(8), of(16));
        Self(Registers::with([sums, x, sums_of_16, x_of_16, [DEPTH as u8 / 4, 64], [0; 2], [0; 2], [0; 2]]))
    }

    /// `sums = x · w` with `M` rows of 32 bytes with a sign, x, and w of bytes without one, four along k of each of 16 columns in a row; M is 8
    /// or 16. The sums are whole numbers, 16 of a row of x after each other.
    #[allow(clippy::unused_self)] // that there is one says that they are ready
    #[inline]
    pub fn multiply<T: Copy, const M: usize>(&self, x: &[T; M], w: &[u8; 16 * DEPTH], sums: &mut [[u8; 64]; M]) {
        const { assert!(size_of::<T>() == DEPTH && (M == 8 || M == 16)) };
        // SAFETY: the registers are ready. They take M rows of 32 bytes from x and 8 of 64 from w, and give M of 64 to `sums`.
        unsafe {
            asm!(
                "tilezero tmm{to}",
                "tileloadd tmm4, [{w} + {wide} * 1]",
                "tileloadd tmm{of}, [{x} + {narrow} * 1]",
                "tdpbsud tmm{to}, tmm{of}, tmm4",
                "tilestored [{sums} + {wide} * 1], tmm{to}",
                to = const M / 8 * 2 - 2,
                of = const M / 8 * 2 - 1,
                x = in(reg) x,
                w = in(reg) w,
                sums = in(reg) sums,
                wide = in(reg) 64usize,
                narrow = in(reg) DEPTH,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, preserves_flags)
            );
        }
    }
}

/// So many tiles, each on cache lines of its own; they hold what they held.
pub(crate) fn tiles_in(memory: &mut Vec<f32>, count: usize) -> &mut [Tile] {
    let here = aligned(memory, count * LANES * LANES);
    memory[here].as_chunks_mut().0.as_chunks_mut().0
}

/// A row of the left factor, rounded to the nearest, as row `i` of tiles along k.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(crate) fn round(x: &[f32], i: usize, to: &mut [Tile]) {
    for (x, to) in x.chunks(STEP).zip(to) {
        let mut all = [0.0; STEP];
        let x = if let Some(x) = x.as_array::<STEP>() {
            x
        } else {
            all[..x.len()].copy_from_slice(x);
            &all
        };
        let (front, back) = x.split_at(LANES);
        if let (Some(front), Some(back)) = (front.as_array(), back.as_array()) {
            store_512(&mut to[i], in_bf16([load_512(front), load_512(back)]));
        }
    }
}

/// Two times 16 numbers as pairs, the first ones in the lower halves.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
#[inline]
pub(crate) fn side_by_side(both: [__m512; 2]) -> __m512 {
    by_turns(in_bf16(both))
}

/// Two times 16 numbers one after the other, rounded to the nearest.
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
pub(crate) fn in_bf16([first, second]: [__m512; 2]) -> __m512 {
    let numbers = _mm512_cvtne2ps_pbh(second, first);
    // SAFETY: both are 64 bytes that may be any.
    unsafe { std::mem::transmute::<__m512bh, __m512>(numbers) }
}

/// 32 numbers in bf16 by turns from the first half and from the second one.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
pub(crate) fn by_turns(both: __m512) -> __m512 {
    const TURNS: [u16; 32] = {
        let mut turns = [0; 32];
        let mut i = 0;
        while i < 32 {
            turns[i] = i as u16 / 2 + 16 * (i as u16 % 2);
            i += 1;
        }
        turns
    };
    // SAFETY: 64 bytes are there to read; the instruction asks for no alignment.
    let turns = unsafe { _mm512_loadu_si512(TURNS.as_ptr().cast()) };
    _mm512_castsi512_ps(_mm512_permutexvar_epi16(turns, _mm512_castps_si512(both)))
}
