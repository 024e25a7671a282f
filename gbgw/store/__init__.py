"""What must outlive the process: tokens, devices, channels, bindings and dialogs in progress."""
