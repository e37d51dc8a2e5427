package link

import "crypto/tls"

// ClientTLS is the device's side of TLS towards any service of the hub, at
// address (host:port): the same proof, and the same look at the server's
// certificate, as for the broker. ca are the roots in DER.
func ClientTLS(address string, cert tls.Certificate, ca [][]byte) (*tls.Config, error) {
	return clientTLS(Config{Broker: address, Certificate: cert, CA: ca})
}
