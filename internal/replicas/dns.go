package replicas

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aviary-rollouts/aviary/internal/httpx"
	"github.com/aviary-rollouts/aviary/router/api"
)

// lookupTimeout bounds one look at the name.
const lookupTimeout = 2 * time.Second

// Resolver looks names up. A *net.Resolver is one.
type Resolver interface {
	// LookupNetIP returns the addresses of host; network is "ip".
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// name is a DNS name that stands for all replicas.
type name struct {
	host     string // that is looked up
	port     uint16
	label    string // scheme, host and port, without secrets
	url      *url.URL
	settings Settings
	resolver Resolver
	under    http.RoundTripper // of all replicas: its connections are told apart by address

	mu   sync.Mutex
	last []Replica
}

func newName(s Settings) (*name, error) {
	if s.Client != nil {
		return nil, errors.New("gateways by name bring their own client")
	}
	c, err := api.NewClient(s.DNS, s.Token)
	if err != nil {
		return nil, err
	}
	address := s.DNS
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("gateways' name is in no URL: want http://host:port")
	}
	n := &name{host: u.Hostname(), label: httpx.Host(c.Address()), url: u, settings: s, resolver: s.Resolver}
	if _, err := netip.ParseAddr(n.host); err == nil || n.host == "" {
		return nil, fmt.Errorf("%s has no name to look up: want a DNS name, or a list of addresses", n.label)
	}
	port := cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return nil, fmt.Errorf("%s has port %s: want 1 to 65535", n.label, port)
	}
	n.port = uint16(number)
	if n.resolver == nil {
		n.resolver = net.DefaultResolver
	}
	t := httpx.NewTransport(s.Timeout)
	t.Proxy = nil // a proxy would look the name up itself, and reach any one of them
	t.MaxIdleConns = 2 * Most
	if t.TLSClientConfig = s.TLS.Clone(); t.TLSClientConfig == nil {
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	t.TLSClientConfig.ServerName = cmp.Or(t.TLSClientConfig.ServerName, strings.TrimSuffix(n.host, "."))
	n.under = t
	return n, nil
}

// all are the replicas that the name stands for now. Those that it no longer stands for are gone; but a look that fails takes
// none away.
func (n *name) all(ctx context.Context) []Replica {
	addresses, err := n.look(ctx)
	n.mu.Lock()
	defer n.mu.Unlock()
	if err == nil {
		before := n.last
		n.last = make([]Replica, 0, len(addresses))
		for _, a := range addresses {
			label := n.url.Scheme + "://" + netip.AddrPortFrom(a, n.port).String()
			if i := slices.IndexFunc(before, func(r Replica) bool { return r.Name == label }); i >= 0 {
				n.last = append(n.last, before[i])
				continue
			}
			var r Replica
			if r, err = n.replica(label, a); err != nil {
				break
			}
			n.last = append(n.last, r)
		}
	}
	if err != nil {
		return append(slices.Clone(n.last), Replica{Name: n.label, Err: err})
	}
	return slices.Clone(n.last)
}

// look is the addresses of the name, sorted, each once.
func (n *name) look(ctx context.Context) ([]netip.Addr, error) {
	limited, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	found, err := n.resolver.LookupNetIP(limited, "ip", n.host)
	var dns *net.DNSError
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("look up %s: %w", n.host, ctx.Err())
	case errors.As(err, &dns) && dns.IsNotFound, err == nil && len(found) == 0:
		return nil, fmt.Errorf("the name %s stands for no address: want one of every gateway", n.host)
	case err != nil:
		return nil, fmt.Errorf("look up %s: %w", n.host, err)
	}
	addresses := make([]netip.Addr, 0, len(found))
	for _, a := range found {
		addresses = append(addresses, a.Unmap())
	}
	slices.SortFunc(addresses, netip.Addr.Compare)
	addresses = slices.Compact(addresses)
	if len(addresses) > Most {
		return nil, fmt.Errorf("the name %s stands for %d addresses: want at most %d", n.host, len(addresses), Most)
	}
	return addresses, nil
}

// replica is the gateway at an address of the name.
func (n *name) replica(label string, a netip.Addr) (Replica, error) {
	client := httpx.NewClient(httpx.Settings{Timeout: n.settings.Timeout, MaxBody: n.settings.MaxBody, Transport: &pinned{
		host: n.url.Host, to: netip.AddrPortFrom(a, n.port).String(), next: n.under,
	}})
	c, err := api.NewClient(n.url.String(), n.settings.Token, api.WithHTTPClient(client))
	return Replica{Name: label, Client: c}, err
}

// pinned sends what is meant for a host to one of its addresses, by the host's name.
type pinned struct {
	host, to string
	next     http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (p *pinned) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host != p.host {
		return nil, fmt.Errorf("refuse to ask %s on behalf of %s", req.URL.Host, p.host)
	}
	out := req.Clone(req.Context())
	out.Host = p.host
	out.URL.Host = p.to
	resp, err := p.next.RoundTrip(out)
	if resp != nil {
		resp.Request = req
	}
	return resp, err
}
