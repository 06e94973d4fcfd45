// Package replicas finds the gateways that a data plane consists of: by a list of addresses, or by a DNS name that stands for all
// of them.
package replicas

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/aviary-rollouts/aviary/internal/httpx"
	"github.com/aviary-rollouts/aviary/router/api"
)

// Most is how many replicas a DNS name may stand for.
const Most = 256

// Settings say where the replicas are: Addresses or DNS, not both.
type Settings struct {
	Addresses []string // the admin API of every replica, such as http://10.0.0.7:9901
	// DNS is an address such as http://gateways.aviary.svc:9901, whose host is looked up every time. Every address it has is a
	// replica. They are called directly, never through a proxy, by the name: as Host, and as what a certificate must be for.
	DNS     string
	Token   string
	Timeout time.Duration // of one call
	MaxBody int64         // of an answer, in bytes
	TLS     *tls.Config   // of https addresses; nil: the defaults
	// Client instead of one made of Timeout, MaxBody and TLS; for Addresses only. Without a timeout of its own it gets Timeout.
	Client   *http.Client
	Resolver Resolver // for DNS; nil: the system's
}

// Replica is one gateway.
type Replica struct {
	Name   string      // scheme, address and port, without secrets
	Client *api.Client // nil for what stands for the replicas that can't be found
	Err    error       // why there is no Client
}

// Set finds the replicas. It is safe for concurrent use.
type Set struct {
	list []Replica
	name *name // nil: the list
}

// New is the set that the settings describe. Errors: no replica, one twice, what is no address, or a name that is none.
func New(s Settings) (*Set, error) {
	switch {
	case s.DNS != "" && len(s.Addresses) > 0:
		return nil, errors.New("gateways by list and by name: want one of them")
	case s.DNS != "":
		n, err := newName(s)
		if err != nil {
			return nil, err
		}
		return &Set{name: n}, nil
	case len(s.Addresses) == 0:
		return nil, errors.New("no gateways, want at least one admin address")
	}
	client := s.Client
	if client == nil {
		client = httpx.NewClient(httpx.Settings{Timeout: s.Timeout, MaxBody: s.MaxBody, TLS: s.TLS})
	}
	timeout := s.Timeout
	if client.Timeout > 0 {
		timeout = client.Timeout
	}
	set := &Set{}
	for _, address := range s.Addresses {
		c, err := api.NewClient(address, s.Token, api.WithHTTPClient(client), api.WithTimeout(timeout))
		if err != nil {
			return nil, err
		}
		name := httpx.Host(c.Address())
		if slices.ContainsFunc(set.list, func(r Replica) bool { return r.Name == name }) {
			return nil, fmt.Errorf("gateway %s is named twice", name)
		}
		set.list = append(set.list, Replica{Name: name, Client: c})
	}
	return set, nil
}

// All are the replicas as of now, never none. Where a name can't be looked up, or stands for nothing, they are those last known,
// and one more that has the name and no Client, but an Err: nobody can say that all have been asked.
func (s *Set) All(ctx context.Context) []Replica {
	if s.name == nil {
		return s.list
	}
	return s.name.all(ctx)
}

// ByName reports whether the replicas are found by a name, so that two of them may be the same one.
func (s *Set) ByName() bool { return s.name != nil }
