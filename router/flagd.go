package router

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"

	"github.com/twmb/murmur3"

	"github.com/aviary-rollouts/aviary/router/api"
)

// The hashes by which an agent's keys are divided: AgentOptions.Hash.
const (
	HashAviary = "aviary" // Bucket: the better one, and the default
	HashFlagd  = "flagd"  // FlagdBucket: for agents whose callers ask an OpenFeature SDK with flagd too
)

// hashIsFlagd reads an AgentOptions.Hash. Errors: a name that is not known.
func hashIsFlagd(name string) (bool, error) {
	switch name {
	case "", HashAviary:
		return false, nil
	case HashFlagd:
		return true, nil
	}
	return false, fmt.Errorf("hash %q: want %s or %s", name, HashAviary, HashFlagd)
}

// FlagdBucket is where key falls in [0, Buckets) under salt by flagd's fractional operation, as in FlagdTargeting: it goes to the
// canary if FlagdBucket < weight. It agrees with the evaluator of flagd's core v0.12.1, and with SDKs that evaluate as that
// does, for every key of valid UTF-8 and every weight. Flagd changed its hashing after that, in March 2026: newer ones disagree.
//
// Flagd takes the share from 2^31 values of the hash, as percent in floating point, so that it can express any basis point: no
// weight has to be refused. It allocates only if salt and key together are longer than a kilobyte.
func FlagdBucket(key, salt string) int {
	var buf [1024]byte
	text := append(append(buf[:0], salt...), key...)
	// Flagd's "cat" operation trims what it joins.
	return flagdBucket(int32(murmur3.Sum32(bytes.TrimSpace(text))))
}

// flagdBucket is the largest bucket whose weight leaves the keys of that hash on stable. Flagd compares percentages: the first
// guess may be a neighbour, by rounding.
func flagdBucket(hash int32) int {
	percent := math.Abs(float64(hash)) / math.MaxInt32 * 100
	bucket := min(int(percent*Buckets/100), Buckets-1)
	for bucket > 0 && percent < flagdPercent(bucket) {
		bucket--
	}
	for bucket < Buckets-1 && percent >= flagdPercent(bucket+1) {
		bucket++
	}
	return bucket
}

// flagdPercent is the percentage that flagd makes of a weight in basis points, with the rounding of its own expression.
func flagdPercent(weight int) float64 { return 100 * float64(weight) / float64(Buckets) }

// The variants of the flag that FlagdTargeting chooses from.
const (
	FlagdCanary = "canary"
	FlagdStable = "stable"
)

// FlagdTargeting is the targeting rule of a flagd flag with the variants FlagdCanary and FlagdStable that divides targeting keys
// exactly as a router does whose agent has HashFlagd, under a route with owner salt and the canary's weight in basis points.
// A caller without a targeting key, and one of the three hashes of 2^32 that flagd gives to no variant, is on stable, or on
// the canary if that has all the weight. Errors: a weight beyond 0 to 10000.
func FlagdTargeting(salt string, weight int) (json.RawMessage, error) {
	if weight < 0 || weight > api.FullWeight {
		return nil, fmt.Errorf("weight %d: want basis points from 0 to %d", weight, api.FullWeight)
	}
	rest := FlagdStable
	if weight == api.FullWeight {
		rest = FlagdCanary
	}
	type object = map[string]any
	type list = []any
	key := object{"var": "targetingKey"}
	share := object{"fractional": list{
		object{"cat": list{salt, key}}, list{FlagdCanary, weight}, list{FlagdStable, api.FullWeight - weight},
	}}
	rule, err := json.Marshal(object{"if": list{key, object{"or": list{share, rest}}, rest}})
	if err != nil {
		return nil, fmt.Errorf("encode the targeting rule: %w", err) // not with these types
	}
	return rule, nil
}
