// Package host starts a drover-infer child in its cage and speaks its protocol:
// it hands over the model and the rings of frames, asks for single pictures,
// and receives results. The device and the cloud use it alike, so that a model
// is always judged by the code that will run it.
//
// The child is not trusted. It runs a stranger's model in native code that may
// crash, hang or, at worst, be taken over; what it can then reach is the
// business of infer/cage, what it can then say is the business of this package.
// Every message is bounded and must be one that the state of the conversation
// allows, every tensor must have the size of the contract, every text is cut
// and freed of control characters. What breaks these rules is a protocol
// death: the child is killed, and the error says why. The parent never waits
// without a bound for a child: a request whose context ends kills it, for an
// inference that runs cannot be interrupted.
//
// A Child has two goroutines. One starts the process and waits for it, locked
// to its thread, for the kernel ties a child to the thread that started it. The
// other receives messages. Both end with the child, whatever its end is.
package host
