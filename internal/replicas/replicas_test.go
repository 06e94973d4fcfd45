package replicas

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// answers are what a resolver says, one after the other; the last one for ever.
type answers struct {
	mu    sync.Mutex
	queue []answer
	host  string
}

type answer struct {
	addresses []string
	err       error
}

func (a *answers) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if network != "ip" {
		return nil, errors.New("asked for " + network)
	}
	a.host = host
	now := a.queue[0]
	if len(a.queue) > 1 {
		a.queue = a.queue[1:]
	}
	var out []netip.Addr
	for _, s := range now.addresses {
		out = append(out, netip.MustParseAddr(s))
	}
	return out, now.err
}

func names(all []Replica) (out []string) {
	for _, r := range all {
		if (r.Client == nil) != (r.Err != nil) {
			out = append(out, "neither fish nor flesh")
		}
		out = append(out, r.Name)
	}
	return out
}

func TestAllByName(t *testing.T) {
	t.Parallel()
	fault := errors.New("no answer")
	a := &answers{queue: []answer{
		{err: fault},
		{addresses: []string{"fd00::2", "10.0.0.2", "::ffff:10.0.0.1", "10.0.0.1", "10.0.0.2"}},
		{addresses: []string{"10.0.0.2", "10.0.0.3"}},
		{err: fault},
		{},
		{addresses: []string{"10.0.0.3"}},
	}}
	set, err := New(Settings{DNS: "https://gateways.aviary.svc.", Token: "t", Resolver: a})
	if err != nil {
		t.Fatal(err)
	}
	if !set.ByName() {
		t.Error("not by name")
	}
	const name = "https://gateways.aviary.svc."
	var before []Replica
	for i, want := range [][]string{
		{name},
		{"https://10.0.0.1:443", "https://10.0.0.2:443", "https://[fd00::2]:443"},
		{"https://10.0.0.2:443", "https://10.0.0.3:443"},
		{"https://10.0.0.2:443", "https://10.0.0.3:443", name},
		{"https://10.0.0.2:443", "https://10.0.0.3:443", name},
		{"https://10.0.0.3:443"},
	} {
		all := set.All(t.Context())
		if diff := cmp.Diff(want, names(all)); diff != "" {
			t.Errorf("look %d (-want +got):\n%s", i, diff)
		}
		for _, r := range all { // one that stays keeps its client
			if j := slices.IndexFunc(before, func(b Replica) bool { return b.Name == r.Name }); j >= 0 && r.Client != before[j].Client {
				t.Errorf("look %d: %s has another client", i, r.Name)
			}
		}
		before = all
	}
	if a.host != "gateways.aviary.svc." {
		t.Errorf("looked %s up", a.host)
	}
}

func TestAllWithoutTime(t *testing.T) {
	t.Parallel()
	set, err := New(Settings{DNS: "http://gateways:9901", Resolver: &answers{queue: []answer{{addresses: []string{"10.0.0.1"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if all := set.All(ctx); len(all) != 1 || !errors.Is(all[0].Err, context.Canceled) {
		t.Errorf("%+v, want what stands for all, with %v", all, context.Canceled)
	}
}

func TestPinnedGoesNowhereElse(t *testing.T) {
	t.Parallel()
	p := &pinned{host: "gateways:9901", to: "10.0.0.1:9901", next: http.DefaultTransport}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://elsewhere:9901/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.RoundTrip(req); err == nil || !strings.Contains(err.Error(), "elsewhere") {
		t.Errorf("error %v, want a refusal", err)
	}
}
