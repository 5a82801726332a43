package main

import (
	"encoding/binary"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"
)

// What is computed here is described in ../workload.rs and must stay equal to it.

const (
	seedAddress = 1
	seedBalance = 2
	seedValue   = 3
	seedPick    = 4
	seedRead    = 5

	firstBlock     = uint64(1_000)
	contractNumber = uint64(1) << 40
	accountTag     = uint64(0)
	slotTag        = uint64(1)
)

func mix(n uint64) uint64 {
	z := (n + 1) * 0x9e3779b97f4a7c15
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	return z ^ (z >> 31)
}

func draw(seed, a, b uint64) uint64 {
	return mix(mix(mix(seed)^a) ^ b)
}

func address(number uint64) common.Address {
	var out common.Address
	binary.BigEndian.PutUint64(out[0:], draw(seedAddress, number, 0))
	binary.BigEndian.PutUint64(out[8:], draw(seedAddress, number, 1))
	binary.BigEndian.PutUint32(out[16:], uint32(draw(seedAddress, number, 2)>>32))
	return out
}

func nonce(number uint64) uint64 {
	return number % 100
}

// balance is 9 bytes long.
func balance(number, block uint64) *uint256.Int {
	high := 1 + draw(seedBalance, number, block)%255
	low := draw(seedBalance, number, ^block)
	return &uint256.Int{low, high, 0, 0}
}

// slotValue is 8 bytes long.
func slotValue(number, block uint64) common.Hash {
	var out common.Hash
	binary.BigEndian.PutUint64(out[24:], draw(seedValue, number, block)|1<<63)
	return out
}

func slotKey(number uint64) common.Hash {
	var out common.Hash
	binary.BigEndian.PutUint64(out[24:], number)
	return out
}

// picks answers the numbers that a block changes: distinct old ones, then new ones.
func picks(tag, block, existing, count uint64) []uint64 {
	seen := make(map[uint64]struct{}, count)
	out := make([]uint64, 0, count+count/10)
	for turn := uint64(0); uint64(len(out)) < count; turn++ {
		number := draw(seedPick, block<<1|tag, turn) % existing
		if _, known := seen[number]; !known {
			seen[number] = struct{}{}
			out = append(out, number)
		}
	}
	for number := existing; number < existing+count/10; number++ {
		out = append(out, number)
	}
	return out
}
