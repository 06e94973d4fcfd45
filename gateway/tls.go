package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/aviary-rollouts/aviary/config"
)

// identity is what a listener shows in TLS and asks of its clients. It follows its files.
type identity struct {
	what    string // the listener, in errors and logs
	files   config.GatewayTLS
	log     *slog.Logger
	current atomic.Pointer[tls.Config]
	sum     []byte // of the files' contents when they were last looked at
}

// newIdentity reads the files. Without files it is nil, which is plain HTTP.
func newIdentity(what string, files *config.GatewayTLS, log *slog.Logger) (*identity, error) {
	if files == nil {
		return nil, nil
	}
	i := &identity{what: what, files: *files, log: log}
	if _, err := i.look(); err != nil {
		return nil, fmt.Errorf("TLS of the %s: %w", what, err)
	}
	return i, nil
}

// config is for a listener. It gives every connection what is in force when it begins.
func (i *identity) config() *tls.Config {
	if i == nil {
		return nil
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return i.current.Load(), nil },
	}
}

// run looks at the files until ctx ends. Whatever is wrong with new ones, those of before stay in force.
func (i *identity) run(ctx context.Context, every time.Duration) {
	if i == nil {
		return
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		switch changed, err := i.look(); {
		case err != nil:
			i.log.Error("certificate not taken over, that of before stays", "listener", i.what, "error", err)
		case changed:
			i.log.Info("certificate taken over", "listener", i.what, "not_after", i.notAfter())
		}
	}
}

// look takes the files over if their contents changed since the last look. One fault is an error once.
func (i *identity) look() (changed bool, err error) {
	var contents [3][]byte
	var faults []error
	hash := sha256.New()
	for n, name := range []config.Path{i.files.CertFile, i.files.KeyFile, i.files.ClientCAFile} {
		if name == "" {
			continue
		}
		raw, err := os.ReadFile(string(name))
		if err != nil {
			faults = append(faults, err)
			raw = []byte(err.Error())
		}
		contents[n] = raw
		fmt.Fprintf(hash, "%d %d\n", n, len(raw))
		hash.Write(raw)
	}
	sum := hash.Sum(nil)
	if bytes.Equal(sum, i.sum) {
		return false, nil
	}
	i.sum = sum
	if len(faults) > 0 {
		return false, errors.Join(faults...)
	}
	c, err := i.parse(contents[0], contents[1], contents[2])
	if err != nil {
		return false, err
	}
	i.current.Store(c)
	return true, nil
}

// parse builds the settings of a connection from the contents of the files.
func (i *identity) parse(cert, key, clientCA []byte) (*tls.Config, error) {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", i.files.CertFile, i.files.KeyFile, err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"}}
	if i.files.ClientCAFile != "" {
		c.ClientCAs = x509.NewCertPool()
		if !c.ClientCAs.AppendCertsFromPEM(clientCA) {
			return nil, fmt.Errorf("client CA %s: no certificate in PEM", i.files.ClientCAFile)
		}
		c.ClientAuth = tls.RequireAndVerifyClientCert
		c.SessionTicketsDisabled = true // a resumed session would outlive the CA that let it in
	}
	return c, nil
}

// notAfter is when the certificate in force ends.
func (i *identity) notAfter() time.Time {
	leaf := i.current.Load().Certificates[0].Leaf
	if leaf == nil {
		return time.Time{}
	}
	return leaf.NotAfter
}
