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
                xor3(xor3($a[0], $a[5], $a[10]), $a[15], $a[20]),
                xor3(xor3($a[1], $a[6], $a[11]), $a[16], $a[21]),
                xor3(xor3($a[2], $a[7], $a[12]), $a[17], $a[22]),
                xor3(xor3($a[3], $a[8], $a[13]), $a[18], $a[23]),
                xor3(xor3($a[4], $a[9], $a[14]), $a[19], $a[24]),
            ];
            let r: [_; 5] = [rotate!(c[0], 1), rotate!(c[1], 1), rotate!(c[2], 1), rotate!(c[3], 1), rotate!(c[4], 1)];
            // theta's second half, rho and pi: word (x, y) goes to (y, 2x + 3y), rotated.
            let b00 = xor3($a[0], c[4], r[1]);
            let b01 = rotate!(xor3($a[6], c[0], r[2]), 44);
            let b02 = rotate!(xor3($a[12], c[1], r[3]), 43);
            let b03 = rotate!(xor3($a[18], c[2], r[4]), 21);
            let b04 = rotate!(xor3($a[24], c[3], r[0]), 14);
            let b05 = rotate!(xor3($a[3], c[2], r[4]), 28);
            let b06 = rotate!(xor3($a[9], c[3], r[0]), 20);
            let b07 = rotate!(xor3($a[10], c[4], r[1]), 3);
            let b08 = rotate!(xor3($a[16], c[0], r[2]), 45);
            let b09 = rotate!(xor3($a[22], c[1], r[3]), 61);
            let b10 = rotate!(xor3($a[1], c[0], r[2]), 1);
            let b11 = rotate!(xor3($a[7], c[1], r[3]), 6);
            let b12 = rotate!(xor3($a[13], c[2], r[4]), 25);
            let b13 = rotate!(xor3($a[19], c[3], r[0]), 8);
            let b14 = rotate!(xor3($a[20], c[4], r[1]), 18);
            let b15 = rotate!(xor3($a[4], c[3], r[0]), 27);
            let b16 = rotate!(xor3($a[5], c[4], r[1]), 36);
            let b17 = rotate!(xor3($a[11], c[0], r[2]), 10);
            let b18 = rotate!(xor3($a[17], c[1], r[3]), 15);
            let b19 = rotate!(xor3($a[23], c[2], r[4]), 56);
            let b20 = rotate!(xor3($a[2], c[1], r[3]), 62);
            let b21 = rotate!(xor3($a[8], c[2], r[4]), 55);
            let b22 = rotate!(xor3($a[14], c[3], r[0]), 39);
            let b23 = rotate!(xor3($a[15], c[4], r[1]), 41);
            let b24 = rotate!(xor3($a[21], c[0], r[2]), 2);
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
