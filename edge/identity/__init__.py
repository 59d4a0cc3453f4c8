"""Who a device is and whom it believes: key and certificate, trusted public keys."""
