// Package upstream is the instances that serve one version of an agent: which of them is asked next, which is left out because
// it can't be reached, and how many requests may be under way at once.
package upstream

import (
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// SchemeH2C is the scheme of an instance that speaks HTTP/2 without TLS, as gRPC servers inside a cluster do: h2c://host:port.
const SchemeH2C = "h2c"

// An instance that could not be reached this often in a row is left out, for a back-off that doubles from the least to the most.
const (
	failuresToEject = 3
	leastBackOff    = 250 * time.Millisecond
	mostBackOff     = 10 * time.Second
	mostAlone       = time.Second // of a version's only instance, since nobody else can serve meanwhile
)

// Set is all instances of one version. It is safe for concurrent use; New makes one.
type Set struct {
	instances atomic.Pointer[[]*Instance]
	gate      gate
	start     time.Time
	mu        sync.Mutex // of Update
	nowhere   atomic.Int64
	notice    func(i *Instance, leftOut bool)
}

// Instance is one place where a version runs.
type Instance struct {
	url    *url.URL
	addr   string // host:port
	live   atomic.Int64
	failed atomic.Int64 // connections in a row
	probes atomic.Int64 // in a row, that did not bring it back
	until  atomic.Int64 // nanoseconds since the set's start, when one request may try it again; 0: it is well
}

// New is a set of the instances at the base URLs, of which there is at least one. notice is told when one is left out, and when it is back;
// it must not wait.
func New(urls []*url.URL, limits Limits, notice func(i *Instance, leftOut bool)) *Set {
	s := &Set{start: time.Now(), notice: notice}
	s.gate.limits = limits
	s.Update(urls, limits)
	return s
}

// Update replaces the instances and limits. Those that stay keep what is known of them.
func (s *Set) Update(urls []*url.URL, limits Limits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var before, now []*Instance
	if p := s.instances.Load(); p != nil {
		before = *p
	}
	for _, u := range urls {
		i := slices.IndexFunc(before, func(b *Instance) bool { return *b.url == *u })
		if i < 0 {
			now = append(now, &Instance{url: u, addr: address(u)})
		} else {
			now = append(now, before[i])
		}
	}
	s.instances.Store(&now)
	s.gate.set(limits)
}

// Len is how many instances there are.
func (s *Set) Len() int { return len(*s.instances.Load()) }

// First is the base URL that was given first. The caller must not change it.
func (s *Set) First() *url.URL { return (*s.instances.Load())[0].url }

// URLs are the base URLs, in the order they were given. The caller must not change them.
func (s *Set) URLs() []*url.URL {
	var out []*url.URL
	for _, i := range *s.instances.Load() {
		out = append(out, i.url)
	}
	return out
}

// Pick is the instance with the fewest requests under way among those that can be reached, by lot where several are. Instances in
// tried are left out. It is nil when none is left: they are all tried, or can't be reached and it is too soon to try again.
func (s *Set) Pick(tried ...*Instance) *Instance {
	all := *s.instances.Load()
	if len(all) == 1 && len(tried) == 0 && all[0].until.Load() == 0 {
		return all[0]
	}
	var best *Instance
	ties := 0
	for _, i := range all {
		if i.until.Load() != 0 || slices.Contains(tried, i) {
			continue
		}
		switch {
		case best == nil || i.live.Load() < best.live.Load():
			best, ties = i, 1
		case i.live.Load() == best.live.Load():
			if ties++; rand.IntN(ties) == 0 { //nolint:gosec // which instance is no secret
				best = i
			}
		}
	}
	if probe := s.probe(all, tried); probe != nil {
		return probe
	}
	if best == nil && len(tried) == 0 {
		s.nowhere.Add(1)
	}
	return best
}

// Unreached is for how many requests Pick had no instance so far.
func (s *Set) Unreached() int64 { return s.nowhere.Load() }

// probe is an instance that was left out and whose back-off is over, for one request per back-off.
func (s *Set) probe(all, tried []*Instance) *Instance {
	for _, i := range all {
		until := i.until.Load()
		if until == 0 || slices.Contains(tried, i) {
			continue
		}
		now := int64(time.Since(s.start))
		if now >= until && i.until.CompareAndSwap(until, now+int64(backOff(i.probes.Load()+1, len(all)))) {
			i.probes.Add(1)
			return i
		}
	}
	return nil
}

// Unreachable notes that no connection to i could be made. What counts for the back-off is the probes that failed, not how many
// requests were waiting for a connection when the instance went away.
func (s *Set) Unreachable(i *Instance) {
	if i.failed.Add(1) < failuresToEject {
		return
	}
	if i.until.CompareAndSwap(0, max(1, int64(time.Since(s.start)+backOff(0, s.Len())))) {
		s.notice(i, true)
	}
}

// Reached notes that a connection to i could be made, whatever it is that the instance will answer, and when.
func (s *Set) Reached(i *Instance) {
	if i.failed.Load() != 0 || i.until.Load() != 0 {
		i.failed.Store(0)
		i.probes.Store(0)
		if i.until.Swap(0) != 0 {
			s.notice(i, false)
		}
	}
}

// Dialled notes whether a connection to addr, a host and port, could be made. It is false if no instance is there: its name may
// have been written in another way.
func (s *Set) Dialled(addr string, made bool) (known bool) {
	for _, i := range *s.instances.Load() {
		if i.addr != addr {
			continue
		}
		known = true
		if made {
			s.Reached(i)
		} else {
			s.Unreachable(i)
		}
	}
	return known
}

// address is the host and port of a URL.
func address(u *url.URL) string {
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "https":
		port = "443"
	default:
		port = "80"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// RetryAfter is when a set of which Pick gave nothing is worth another try.
func (s *Set) RetryAfter() time.Duration {
	wait := mostBackOff
	for _, i := range *s.instances.Load() {
		wait = min(wait, max(0, time.Duration(i.until.Load())-time.Since(s.start)))
	}
	return wait
}

// backOff is how long an instance is left out after so many probes in vain.
func backOff(probes int64, instances int) time.Duration {
	most := mostBackOff
	if instances == 1 {
		most = mostAlone
	}
	return min(leastBackOff<<min(probes, 16), most)
}

// URL is the base URL. The caller must not change it.
func (i *Instance) URL() *url.URL { return i.url }

// Begin counts a request under way, and End its end.
func (i *Instance) Begin() { i.live.Add(1) }

// End is called once for every Begin.
func (i *Instance) End() { i.live.Add(-1) }

// Status is how an instance is.
type Status struct {
	URL     string
	Live    int  // requests under way
	Healthy bool // it is not left out
}

// Status is how all instances are, in the order of URLs.
func (s *Set) Status() []Status {
	var out []Status
	for _, i := range *s.instances.Load() {
		out = append(out, Status{URL: i.url.String(), Live: int(i.live.Load()), Healthy: i.until.Load() == 0})
	}
	return out
}
