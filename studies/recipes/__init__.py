"""What each part of the training recipe does to the loss, and how well a learning rate carries from small designs to large ones."""
