package httpx

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// TLS says by files whom a client trusts, and what it shows of itself.
type TLS struct {
	CAFile            string // empty: the system's authorities
	CertFile, KeyFile string // empty: no certificate of its own
	ServerName        string // empty: the address's host
}

// Config reads the files. The client's certificate is read again for every connection, so that it may be renewed while the
// process runs.
func (t TLS) Config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CAFile != "" {
		raw, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("certificate authority: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(raw) {
			return nil, fmt.Errorf("certificate authority %s: no certificate in PEM", t.CAFile)
		}
	}
	if t.CertFile == "" {
		return c, nil
	}
	if _, err := t.certificate(nil); err != nil {
		return nil, err
	}
	c.GetClientCertificate = t.certificate
	return c, nil
}

func (t TLS) certificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("client's certificate: %w", err)
	}
	return &pair, nil
}
