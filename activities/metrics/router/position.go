package router

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/router/api"
)

const cursorVersion = 1

// cursor is what has been counted, per gateway.
type cursor struct {
	Version  int                 `json:"v"`
	Gateways map[string]position `json:"g"`
	At       int64               `json:"t,omitempty"` // when, in Unix milliseconds of the worker
}

// position is what a gateway's counters stood at.
type position struct {
	Instance string `json:"i"`
	Stable   marks  `json:"s,omitempty"`
	Canary   marks  `json:"c,omitempty"`
}

// marks are one version's counters by field, only those that are asked for. None at all: the version had none yet.
type marks map[field]mark

// mark is one field's counters.
type mark struct {
	N       float64 `json:"n,omitempty"`
	X       float64 `json:"x,omitempty"`
	Buckets sparse  `json:"b,omitempty"`
}

// sparse are counts per bucket; as JSON, only those that are not zero, in base64 of varints: how many buckets are left out
// before one, and its count. It starts with how many buckets there are.
type sparse []int64

// MarshalJSON packs the counts.
func (s sparse) MarshalJSON() ([]byte, error) {
	raw := binary.AppendUvarint(nil, uint64(len(s)))
	gap := uint64(0)
	for _, n := range s {
		if n <= 0 {
			gap++
			continue
		}
		raw = binary.AppendUvarint(binary.AppendUvarint(raw, gap), uint64(n))
		gap = 0
	}
	return json.Marshal(base64.RawStdEncoding.EncodeToString(raw))
}

// UnmarshalJSON unpacks the counts.
func (s *sparse) UnmarshalJSON(b []byte) error {
	damaged := fmt.Errorf("bucket counts %.20q are damaged", b)
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return damaged
	}
	raw, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		return damaged
	}
	var numbers []uint64
	for len(raw) > 0 {
		v, n := binary.Uvarint(raw)
		if n <= 0 {
			return damaged
		}
		numbers, raw = append(numbers, v), raw[n:]
	}
	if len(numbers)%2 != 1 || numbers[0] > 10_000 {
		return damaged
	}
	out := make(sparse, numbers[0])
	at := uint64(0)
	for i := 1; i < len(numbers); i += 2 {
		if numbers[i] >= uint64(len(out))-at {
			return damaged
		}
		at += numbers[i]
		out[at] = int64(numbers[i+1])
		at++
	}
	*s = out
	return nil
}

// decodeCursor reads a cursor; an empty one knows no gateway. Errors: *metrics.Rejected, metrics.ErrNewer.
func decodeCursor(raw json.RawMessage) (cursor, error) {
	var c cursor
	if s := strings.TrimSpace(string(raw)); s == "" || s == "null" {
		return c, nil
	}
	err := json.Unmarshal(raw, &c) // one of a newer version may be of other types besides
	if c.Version > cursorVersion {
		return c, fmt.Errorf("%w: %d, this build knows %d", metrics.ErrNewer, c.Version, cursorVersion)
	}
	if err != nil {
		return c, &metrics.Rejected{Reason: fmt.Sprintf("the cursor is not this provider's: %v", err)}
	}
	if c.Version != cursorVersion {
		return c, &metrics.Rejected{Reason: fmt.Sprintf("the cursor has version %d, want %d", c.Version, cursorVersion)}
	}
	return c, nil
}

// keyOf stands for a gateway in cursors.
func keyOf(name string) string {
	raw := binary.BigEndian.AppendUint64(nil, xxhash.Sum64String(name))
	return base64.RawURLEncoding.EncodeToString(raw[:6])
}

// read takes the marks of the wanted fields, of the requests and of the conversations; nil when the gateway has no counters of the version.
func read(c api.Counters, version string, wanted map[field]bool) marks {
	v, ok := c.Versions[version]
	if !ok {
		return nil
	}
	violations := int64(0)
	for _, n := range v.SafetyViolations {
		violations += n
	}
	requests := float64(v.Requests)
	all := marks{
		fieldErrors:       {N: requests, X: float64(v.Errors)},
		fieldTasks:        {N: float64(v.Tasks.Completed + v.Tasks.Failed + v.Tasks.Other), X: float64(v.Tasks.Completed)},
		fieldSafety:       {N: requests, X: float64(violations)},
		fieldSatisfaction: {N: float64(v.Satisfaction.Count), X: v.Satisfaction.Sum},
		fieldTokens:       {N: float64(v.Tokens.Count), X: v.Tokens.Sum},
		fieldCost:         {N: float64(v.CostUSD.Count), X: v.CostUSD.Sum},
		fieldTools:        {N: float64(v.ToolCalls.OK + v.ToolCalls.Error), X: float64(v.ToolCalls.Error)},
		fieldLatency:      {N: float64(sumOf(v.Latency)), Buckets: v.Latency},
		fieldTTFB:         {N: float64(sumOf(v.TTFB)), Buckets: v.TTFB},
	}
	out := marks{fieldRequests: {N: requests, X: requests}, fieldConversations: {N: float64(v.Conversations)}}
	for f := range wanted {
		if m, ok := all[f]; ok {
			out[f] = m
		}
	}
	return out
}

func sumOf(counts []int64) int64 {
	total := int64(0)
	for _, n := range counts {
		total += n
	}
	return total
}

// increments are what one version's fields grew by.
type increments map[field]analysis.Counts

// since is what the counters grew by from old to m. A field that was not asked for then begins now. Counters that fell, as of a
// version that was taken away and put back, began again at zero.
func (m marks) since(old marks) increments {
	if m[fieldRequests].N < old[fieldRequests].N {
		old = nil
	}
	out := increments{}
	for f, now := range m {
		before, known := old[f]
		if old != nil && !known {
			continue
		}
		if now.N < before.N || len(before.Buckets) > 0 && len(before.Buckets) != len(now.Buckets) {
			before = mark{}
		}
		counts := analysis.Counts{N: now.N - before.N, X: now.X - before.X}
		for i, n := range now.Buckets {
			if i < len(before.Buckets) {
				n -= before.Buckets[i]
			}
			counts.Buckets = append(counts.Buckets, float64(max(0, n)))
		}
		out[f] = counts
	}
	return out
}

// add sums other into i.
func (i *increments) add(other increments) {
	if *i == nil {
		*i = increments{}
	}
	for f, o := range other {
		c := (*i)[f]
		c.N += o.N
		c.X += o.X
		if c.Buckets == nil && o.Buckets != nil {
			c.Buckets = make([]float64, len(o.Buckets))
		}
		for j, n := range o.Buckets {
			c.Buckets[j] += n
		}
		(*i)[f] = c
	}
}
