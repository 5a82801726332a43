//! The 24 rounds of Keccak-f[1600], written once for every vector width.

/// Round constants (FIPS 202, algorithm 5).
pub(super) const ROUND_CONSTANTS: [u64; 24] = [
    0x0000_0000_0000_0001,
    0x0000_0000_0000_8082,
    0x8000_0000_0000_808a,
    0x8000_0000_8000_8000,
    0x0000_0000_0000_808b,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8009,
    0x0000_0000_0000_008a,
    0x0000_0000_0000_0088,
    0x0000_0000_8000_8009,
    0x0000_0000_8000_000a,
    0x0000_0000_8000_808b,
    0x8000_0000_0000_008b,
    0x8000_0000_0000_8089,
    0x8000_0000_0000_8003,
    0x8000_0000_0000_8002,
    0x8000_0000_0000_0080,
    0x0000_0000_0000_800a,
    0x8000_0000_8000_000a,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8080,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8008,
];

/// Permutes `$a: [vector; 25]` (word `x + 5y`). The caller's module defines, for its vector type: `xor`, `xor3`,
/// `chi` (`a ^ (!b & c)`), `rotate!(v, n)` and `broadcast(u64)`.
macro_rules! permute {
    ($a:ident) => {
        for constant in $crate::crypto::keccak::rounds::ROUND_CONSTANTS {
            // theta
            let c: [_; 5] = [
                xor(xor3(xor($a[0], $a[5]), $a[10], $a[15]), $a[20]),
                xor(xor3(xor($a[1], $a[6]), $a[11], $a[16]), $a[21]),
                xor(xor3(xor($a[2], $a[7]), $a[12], $a[17]), $a[22]),
                xor(xor3(xor($a[3], $a[8]), $a[13], $a[18]), $a[23]),
                xor(xor3(xor($a[4], $a[9]), $a[14], $a[19]), $a[24]),
            ];
            // Instructions of two operands here and at the ends above: one of three writes over its first, which then has to be copied before.
            let d: [_; 5] = [
                xor(c[4], rotate!(c[1], 1)),
                xor(c[0], rotate!(c[2], 1)),
                xor(c[1], rotate!(c[3], 1)),
                xor(c[2], rotate!(c[4], 1)),
                xor(c[3], rotate!(c[0], 1)),
            ];
            // theta's second half, rho and pi: word (x, y) goes to (y, 2x + 3y), rotated.
            let b00 = xor($a[0], d[0]);
            let b01 = rotate!(xor($a[6], d[1]), 44);
            let b02 = rotate!(xor($a[12], d[2]), 43);
            let b03 = rotate!(xor($a[18], d[3]), 21);
            let b04 = rotate!(xor($a[24], d[4]), 14);
            let b05 = rotate!(xor($a[3], d[3]), 28);
            let b06 = rotate!(xor($a[9], d[4]), 20);
            let b07 = rotate!(xor($a[10], d[0]), 3);
            let b08 = rotate!(xor($a[16], d[1]), 45);
            let b09 = rotate!(xor($a[22], d[2]), 61);
            let b10 = rotate!(xor($a[1], d[1]), 1);
            let b11 = rotate!(xor($a[7], d[2]), 6);
            let b12 = rotate!(xor($a[13], d[3]), 25);
            let b13 = rotate!(xor($a[19], d[4]), 8);
            let b14 = rotate!(xor($a[20], d[0]), 18);
            let b15 = rotate!(xor($a[4], d[4]), 27);
            let b16 = rotate!(xor($a[5], d[0]), 36);
            let b17 = rotate!(xor($a[11], d[1]), 10);
            let b18 = rotate!(xor($a[17], d[2]), 15);
            let b19 = rotate!(xor($a[23], d[3]), 56);
            let b20 = rotate!(xor($a[2], d[2]), 62);
            let b21 = rotate!(xor($a[8], d[3]), 55);
            let b22 = rotate!(xor($a[14], d[4]), 39);
            let b23 = rotate!(xor($a[15], d[0]), 41);
            let b24 = rotate!(xor($a[21], d[1]), 2);
            // chi, and iota on word 0
            $a = [
                xor(chi(b00, b01, b02), broadcast(constant)),
                chi(b01, b02, b03),
                chi(b02, b03, b04),
                chi(b03, b04, b00),
                chi(b04, b00, b01),
                chi(b05, b06, b07),
                chi(b06, b07, b08),
                chi(b07, b08, b09),
                chi(b08, b09, b05),
                chi(b09, b05, b06),
                chi(b10, b11, b12),
                chi(b11, b12, b13),
                chi(b12, b13, b14),
                chi(b13, b14, b10),
                chi(b14, b10, b11),
                chi(b15, b16, b17),
                chi(b16, b17, b18),
                chi(b17, b18, b19),
                chi(b18, b19, b15),
                chi(b19, b15, b16),
                chi(b20, b21, b22),
                chi(b21, b22, b23),
                chi(b22, b23, b24),
                chi(b23, b24, b20),
                chi(b24, b20, b21),
            ];
        }
    };
}
