// Package anchor holds what must not go back: the least security epoch the
// device accepts. A file-backed anchor does it where there is no TPM, and says
// by Assurance that it is the weaker one: whoever can write the disk can set it
// back.
package anchor
