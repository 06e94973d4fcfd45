package prometheus

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/common/model"

	"github.com/aviary-rollouts/aviary/activities/metrics"
)

// Bounds of a cursor.
const (
	cursorVersion = 1
	maxTargets    = 256
	maxLate       = 512
	// remember is how long a target that is gone keeps its position. One that is back later is caught up too, from its last
	// sample in Prometheus; only samples that were still on their way then are lost.
	remember = time.Hour
	// live is how recent a target's last sample must be for the next query to reach back to it by itself.
	live = 5 * time.Minute
	// grace is how long a series' samples may come after those of its target's other series, if that is more than one scrape.
	grace = 2 * time.Minute
	// patience is how long they are waited for at most. It must be less than remember.
	patience = 15 * time.Minute
)

// hashSize is how many bytes of a hash name a target or a series.
const hashSize = 6

type hash [hashSize]byte

func (h hash) String() string { return base64.RawURLEncoding.EncodeToString(h[:]) }

// cursor is the position in the samples: what has been counted. Counters live in Prometheus, so only moments are kept: per
// scraped target the timestamp of its last sample that was seen, which is the same for all of its series, and per series its
// own where it lags behind its target, because its sample was still on its way.
type cursor struct {
	at      int64 // up to when samples were asked for; milliseconds, as all below
	targets map[hash]int64
	late    map[hash]int64
}

// cursorJSON is a cursor as it travels. Timestamps are milliseconds before At.
type cursorJSON struct {
	Version int               `json:"v"`
	At      int64             `json:"at"`
	Targets map[string]int64  `json:"t,omitempty"`
	Late    map[string]string `json:"l,omitempty"` // milliseconds before At → hashes of series, one after the other
}

func (c *cursor) encode() (json.RawMessage, error) {
	out := cursorJSON{Version: cursorVersion, At: c.at, Targets: map[string]int64{}, Late: map[string]string{}}
	for h, ts := range c.targets {
		out.Targets[h.String()] = c.at - ts
	}
	series := map[int64][]byte{}
	for _, h := range slices.SortedFunc(maps.Keys(c.late), func(a, b hash) int { return slices.Compare(a[:], b[:]) }) {
		before := c.at - c.late[h]
		series[before] = append(series[before], h[:]...)
	}
	for before, raw := range series {
		out.Late[fmt.Sprint(before)] = base64.RawURLEncoding.EncodeToString(raw)
	}
	return json.Marshal(out)
}

// decodeCursor reads a cursor; nil when there is none. Errors: metrics.ErrNewer, or what is wrong with it.
func decodeCursor(raw json.RawMessage) (*cursor, error) {
	if s := strings.TrimSpace(string(raw)); s == "" || s == "null" {
		return nil, nil
	}
	var in cursorJSON
	err := json.Unmarshal(raw, &in) // one of a newer version may be of other types besides
	if in.Version > cursorVersion {
		return nil, fmt.Errorf("%w: %d, this build knows %d", metrics.ErrNewer, in.Version, cursorVersion)
	}
	if err != nil {
		return nil, fmt.Errorf("the cursor is not this provider's: %w", err)
	}
	if in.Version != cursorVersion {
		return nil, fmt.Errorf("the cursor has version %d, want %d", in.Version, cursorVersion)
	}
	c := &cursor{at: in.At, targets: map[hash]int64{}, late: map[hash]int64{}}
	for text, before := range in.Targets {
		hashes, err := decodeHashes(text)
		if err != nil || len(hashes) != 1 {
			return nil, errors.New("the cursor is not this provider's: a target is damaged")
		}
		c.targets[hashes[0]] = in.At - before
	}
	for text, packed := range in.Late {
		var before int64
		hashes, err := decodeHashes(packed)
		if _, scan := fmt.Sscan(text, &before); err != nil || scan != nil {
			return nil, errors.New("the cursor is not this provider's: a series is damaged")
		}
		for _, h := range hashes {
			c.late[h] = in.At - before
		}
	}
	return c, nil
}

func decodeHashes(text string) ([]hash, error) {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(raw)%hashSize != 0 {
		return nil, errors.New("not hashes")
	}
	var out []hash
	for chunk := range slices.Chunk(raw, hashSize) {
		out = append(out, hash(chunk))
	}
	return out, nil
}

// trim drops what is too old or too much, the oldest first.
func (c *cursor) trim() {
	maps.DeleteFunc(c.targets, func(_ hash, ts int64) bool { return ts < c.at-remember.Milliseconds() })
	keepNewest(c.targets, maxTargets)
	keepNewest(c.late, maxLate)
}

func keepNewest(m map[hash]int64, n int) {
	if len(m) <= n {
		return
	}
	newest := slices.SortedFunc(maps.Keys(m), func(a, b hash) int {
		return cmp.Or(cmp.Compare(m[b], m[a]), slices.Compare(a[:], b[:]))
	})
	for _, h := range newest[n:] {
		delete(m, h)
	}
}

// from is how far back a query must reach to see, for every live series, the sample that was counted last.
func (c *cursor) from() int64 {
	from := c.at
	for _, ts := range c.targets {
		if ts >= c.at-live.Milliseconds() {
			from = min(from, ts)
		}
	}
	for _, ts := range c.late {
		from = min(from, ts)
	}
	return from
}

// behind is how much older than the position the newest sample of a live target may be: at most a scrape interval while all is well. It is
// live where there is none.
func (c *cursor) behind() time.Duration {
	oldest := int64(math.MaxInt64)
	for _, ts := range c.targets {
		if ts >= c.at-live.Milliseconds() {
			oldest = min(oldest, ts)
		}
	}
	if oldest == math.MaxInt64 {
		return live
	}
	return time.Duration(max(0, c.at-oldest)) * time.Millisecond
}

// last is the timestamp of the last sample of a series that was counted.
func (c *cursor) last(target, series hash) (int64, bool) {
	if ts, ok := c.late[series]; ok {
		return ts, true
	}
	ts, ok := c.targets[target]
	return ts, ok
}

// targetLabels tell apart what is scraped. All series of one target have the same timestamps.
var targetLabels = []model.LabelName{"job", "instance", "namespace", "pod"}

func targetOf(m model.Metric) hash {
	d := xxhash.New()
	for _, l := range targetLabels {
		_, _ = d.WriteString(string(m[l]) + "\xff")
	}
	return sum(d)
}

func seriesOf(m model.Metric) hash {
	d := xxhash.New()
	names := make([]string, 0, len(m))
	for l := range m {
		names = append(names, string(l))
	}
	slices.Sort(names)
	for _, l := range names {
		_, _ = d.WriteString(l + "\xfe" + string(m[model.LabelName(l)]) + "\xff")
	}
	return sum(d)
}

func sum(d *xxhash.Digest) hash {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], d.Sum64())
	return hash(b[:hashSize])
}
