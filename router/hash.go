package router

import (
	"math/bits"

	"github.com/cespare/xxhash/v2"
)

// Buckets is how many equal parts the keys of an agent fall into: one per basis point of weight.
const Buckets = 10000

// Bucket is where key falls in [0, Buckets) under salt: fmix64(xxh64(key) ^ xxh64(salt)), scaled by its high bits. A key keeps
// its bucket as long as the salt stays, and two salts give independent buckets. It goes to the canary if Bucket < weight.
func Bucket(key, salt string) int { return bucket(xxhash.Sum64String(key), xxhash.Sum64String(salt)) }

func bucket(key, salt uint64) int {
	high, _ := bits.Mul64(fmix64(key^salt), Buckets)
	return int(high)
}

// fmix64 is MurmurHash3's 64-bit finaliser (Appleby, public domain). Without it the xor of two hashes leaves the buckets of
// two salts a translation of each other, and so dependent.
func fmix64(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	return h
}
